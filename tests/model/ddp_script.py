"""Gradients of one training step on this process's part of a batch, averaged by DDP; run by test_ddp."""

import os
import sys

import torch
import torch.distributed as dist

from guidedattn.gates import MultiplyGate
from guidedattn.losses import AttentionMining, MaskAlignment
from tests.conftest import make_batch, tiny_classifier


class Step(torch.nn.Module):
    """The training loss as a forward pass, which is what DDP wraps."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.losses(self.model.guide(batch))["loss"]


def step() -> Step:
    losses = [AttentionMining(), MaskAlignment(weight=5.0)]
    return Step(tiny_classifier(norm="group", gate=MultiplyGate(), attention_losses=losses)).train()


def gradients(module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def joined_batch():
    batch = make_batch(size=8)
    batch["has_mask"] = torch.tensor(
        [True, False, False, False, True, True, True, False]
    )  # 1 and 3 per process
    return batch


if __name__ == "__main__":
    rank = int(sys.argv[1])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[2]}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    part = {key: value[4 * rank : 4 * rank + 4] for key, value in joined_batch().items()}
    wrapped = torch.nn.parallel.DistributedDataParallel(step())
    torch.autograd.backward(wrapped(part))
    if rank == 0:
        torch.save(gradients(wrapped), sys.argv[3])
    dist.destroy_process_group()
