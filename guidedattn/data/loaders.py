"""Data loaders whose order is a function of seed and epoch, and whose errors stay short."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader, Dataset, RandomSampler


class EpochSampler(RandomSampler):
    """A shuffle that depends on the seed and the epoch alone.

    Lightning tells a sampler the epoch, so a run that resumes at epoch 7 meets the images in the order of
    an uninterrupted run. Outside Lightning call `set_epoch` before each pass. Several processes get
    Lightning's own distributed sampler in its place.
    """

    def __init__(self, data_source: Sized, seed: int, epoch: int = 0) -> None:
        super().__init__(data_source)
        self.seed = seed
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield every index once."""
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> 1))
        yield from torch.randperm(self.num_samples, generator=generator).tolist()


def train_loader(
    dataset: Dataset[Any],
    batch_size: int,
    num_workers: int,
    seed: int,
    world_size: int = 1,
    epoch: int = 0,
) -> DataLoader[Any]:
    """Return a shuffling loader that never ends on a batch of one image.

    BatchNorm cannot train on a single image, so such a last batch is left out of the epoch (another
    image falls into it in the next epoch). `epoch` is the first: workers ask for their first images before
    Lightning tells a resumed run's epoch.
    """
    per_process = math.ceil(_length(dataset) / world_size)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(dataset, seed, epoch),  # type: ignore[arg-type]  # a map-style dataset has a length
        drop_last=per_process > batch_size and per_process % batch_size == 1,
        # Not persistent: fresh workers draw their seed from the global generator in every epoch, so a
        # resumed run augments exactly as the uninterrupted one.
        **_workers(num_workers, persistent=False),
    )


def evaluation_loader(
    dataset: Dataset[Any], batch_size: int, num_workers: int, repeat: bool = False
) -> DataLoader[Any]:
    """Return a loader in the order of the dataset.

    With several processes each image goes to exactly one of them, so that metrics equal those of one
    process; Lightning leaves the sampler alone. `repeat` asks for Lightning's usual padding instead,
    which gives every process the same number of batches.
    """
    sampler = None
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not repeat and several and torch.distributed.get_world_size() > 1:
        sampler = UnrepeatedDistributedSampler(dataset, shuffle=False)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        shuffle=False,
        **_workers(num_workers, persistent=True),
    )


def _workers(num_workers: int, persistent: bool) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "worker_init_fn": pl_worker_init_function,
        "persistent_workers": persistent and num_workers > 0,
        # Workers that stay draw their seed in the first pass only: from the global generator, a resumed run
        # would draw it once more than the uninterrupted one. Another global seed still gives other draws.
        "generator": torch.Generator().manual_seed(torch.initial_seed())
        if persistent and num_workers > 0
        else None,
        "pin_memory": torch.cuda.is_available(),
    }


def _length(dataset: Dataset[Any]) -> int:
    assert isinstance(dataset, Sized)
    return len(dataset)
