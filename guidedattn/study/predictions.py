"""What a model says about every image of a set, as a table; and its maps of a few."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device

from guidedattn.classifier import GuidedClassifier
from guidedattn.data import ImageDataModule
from guidedattn.errors import DataError
from guidedattn.files import whole_file, whole_path
from guidedattn.guidance import is_dead, normalise, resize
from guidedattn.metrics import energy_in_mask

SHOWN_PER_CLASS = 2


def judge_split(
    model: GuidedClassifier, data: ImageDataModule, split: Any, path: Path, device: torch.device
) -> float:
    """Write the predictions on a split; returns the accuracy."""
    data.predict_split = split
    frame = predict(model, data.predict_dataloader(), patients(data), device)
    with whole_file(path) as file:
        frame.to_csv(file, index=False)
    return float((frame["predicted"] == frame["label"]).mean())


def judge_external(
    model: GuidedClassifier,
    module: ImageDataModule,
    class_names: Sequence[str],
    path: Path,
    device: torch.device,
) -> None:
    """Write the predictions on the test split of another collection.

    Raises:
        DataError: it has other classes.
    """
    module.augment, module.predict_split = None, "test"
    module.setup("predict")
    if tuple(module.class_names) != tuple(class_names):
        raise DataError(
            f"{path.stem} has the classes {', '.join(module.class_names)}; "
            f"the study has {', '.join(class_names)}"
        )
    judge_split(model, module, "test", path, device)


def patients(data: ImageDataModule) -> dict[str, str]:
    """From an image's path to its patient; an image whose patient is unknown is a patient of its own."""
    table = data.manifest()
    known = [
        f"{source}/{patient}" if patient else path
        for path, source, patient in zip(table["path"], table["source"], table["patient"], strict=True)
    ]
    return dict(zip(table["path"], known, strict=True))


@torch.no_grad()
def predict(
    model: GuidedClassifier, batches: Iterable[Mapping[str, Any]], patient: Mapping[str, str], device: Any
) -> pd.DataFrame:
    """One row per image.

    Columns: `path, patient, label, predicted, prob_<class>..., energy_in_mask` (empty without a mask or where
    the map is dead) and `dead`. The map is that of the true class.
    """
    names, rows = model.class_names, []
    for given in batches:
        batch = move_data_to_device(dict(given), device)
        guidance = model.guide(batch)
        energy = energy_in_mask(guidance.attention, guidance.mask)
        dead = is_dead(guidance.attention.relu())
        for i, path in enumerate(batch["path"]):
            counts = bool(guidance.has_mask[i]) and not bool(dead[i])
            probabilities = guidance.probabilities[i].tolist()
            rows.append(
                {
                    "path": path,
                    "patient": patient.get(str(path), str(path)),
                    "label": names[int(guidance.target[i])],
                    "predicted": names[int(guidance.logits[i].argmax())],
                    **{f"prob_{n}": f"{p:.6f}" for n, p in zip(names, probabilities, strict=True)},
                    "energy_in_mask": f"{float(energy[i]):.6f}" if counts else "",
                    "dead": int(dead[i]),
                }
            )
    return pd.DataFrame(rows)


@torch.no_grad()
def save_maps(model: GuidedClassifier, data: ImageDataModule, path: Path, device: torch.device) -> None:
    """Keep the first test images of each class, their masks, and the maps of their true class.

    An npz of `image`, `mask` and `map`, all `[n, H, W]` in [0, 1], `label`, `predicted` and `path` `[n]`.
    """
    data.predict_split = "test"
    seen: dict[int, int] = {}
    kept: dict[str, list[Any]] = {key: [] for key in ("image", "mask", "map", "label", "predicted", "path")}
    for given in data.predict_dataloader():
        batch = move_data_to_device(dict(given), device)
        guidance = model.guide(batch)
        maps = normalise(resize(guidance.attention.relu(), guidance.images))
        for i, label in enumerate(guidance.target.tolist()):
            if seen.get(label, 0) == SHOWN_PER_CLASS:
                continue
            seen[label] = seen.get(label, 0) + 1
            kept["image"].append(guidance.images[i].mean(0).cpu().numpy())
            kept["mask"].append((guidance.mask[i, 0] * guidance.has_mask[i]).cpu().numpy())
            kept["map"].append(maps[i, 0].cpu().numpy())
            kept["label"].append(model.class_names[label])
            kept["predicted"].append(model.class_names[int(guidance.logits[i].argmax())])
            kept["path"].append(str(batch["path"][i]))
        if len(seen) == model.num_classes and min(seen.values()) == SHOWN_PER_CLASS:
            break
    with whole_path(path) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{key: np.array(kept[key]) for key in kept})
