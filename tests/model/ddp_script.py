"""Gradients of one training step on this process's part of a batch, averaged by DDP; run by test_ddp."""

import os
import sys

import torch
import torch.distributed as dist

from guidedattn.explainers import GradCAM
from guidedattn.gates import MultiplyGate
from guidedattn.losses import AttentionMining, MaskAlignment, WarmUp
from tests.conftest import make_batch, tiny_classifier


class Step(torch.nn.Module):
    """The training loss as a forward pass, which is what DDP wraps."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.losses(self.model.guide(batch))["loss"]


def step(kind: str) -> Step:
    """Stage III on a network with GroupNorm, or on a frozen one with BatchNorm; class 0 has a dead map.

    With maps of an inner layer, mining rests.
    """
    frozen, inner = kind == "frozen", kind == "inner layer"
    losses = [AttentionMining(weight=WarmUp(delay=1) if inner else 1.0), MaskAlignment(weight=5.0)]
    model = tiny_classifier(
        "batch" if frozen else "group",
        gate=MultiplyGate(),
        attention_losses=losses,
        freeze_backbone=frozen,
        explainer=GradCAM(layer="module.2" if inner else None),
    )
    with torch.no_grad():
        model.head.net[-1].weight[0].zero_()
    return Step(model).train()


def gradients(module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.requires_grad])


def joined_batch():
    batch = make_batch(size=8)
    batch["label"] = torch.tensor([0, 1, 0, 2, 1, 2, 1, 0])  # 2 and 1 dead maps per process
    batch["has_mask"] = torch.tensor([True, True, False, False, True, True, True, False])  # 2 and 3 masks
    return batch


if __name__ == "__main__":
    rank = int(sys.argv[1])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[2]}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    part = {key: value[4 * rank : 4 * rank + 4] for key, value in joined_batch().items()}
    wrapped = torch.nn.parallel.DistributedDataParallel(step(sys.argv[4]))
    torch.autograd.backward(wrapped(part))
    if rank == 0:
        torch.save(gradients(wrapped), sys.argv[3])
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an orderly exit
