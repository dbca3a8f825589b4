"""Maps from the attention weights of a transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from guidedattn.errors import ConfigError
from guidedattn.explainers.base import Explainer
from guidedattn.guidance import Guidance


class GradientRollout(Explainer):
    """Gradient-weighted attention rollout for timm's vision transformers (Chefer et al. 2021, Eq. 5, 6).

    R = 1; for each block, R += mean over heads of relu(dA * A) R, with A its attention and dA the derivative
    of the class's logit by it. The map is how much each cell feeds, through attention, the cells that the
    head pools: the columns of R - 1, averaged over the cells. Never negative. Plain rollout (Abnar and
    Zuidema 2020) knows no class and so cannot guide one.

    Its blocks run with unfused attention, which is slower and takes more memory.

    Args:
        last: how many of the last blocks to follow; 0 for all.
    """

    def __init__(self, last: int = 0) -> None:
        super().__init__()
        self.last = last

    def attach(self, backbone: nn.Module) -> None:
        """Find the attention blocks and let them form their weights one by one.

        Raises:
            ConfigError: the backbone has none that can show its weights.
        """
        blocks = {
            name: module
            for name, module in backbone.named_modules()
            if isinstance(getattr(module, "attn_drop", None), nn.Module) and hasattr(module, "fused_attn")
        }
        chosen = list(blocks)[-self.last :] if self.last else list(blocks)
        if not chosen:
            raise ConfigError("explainer GradientRollout needs a vision transformer of timm as backbone")
        for name in chosen:
            blocks[name].fused_attn = False
        self.layers = tuple(f"{name}.attn_drop" for name in chosen)

    def combine(self, guidance: Guidance, sources: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
        """`[B, 1, h, w]` from attention weights and their gradients, each `[B, heads, N, N]`.

        Raises:
            ConfigError: the blocks attend within windows, not over the whole image.
        """
        height, width = guidance.features.shape[-2:]
        size = sources[0].shape[-1]
        if any(len(source) != len(guidance.images) or source.shape[-1] != size for source in sources):
            raise ConfigError("explainer GradientRollout: the blocks of this backbone attend within windows")
        identity = torch.eye(size, dtype=sources[0].dtype, device=sources[0].device)
        relevance = identity.expand(len(guidance.images), -1, -1)
        for attention, gradient in zip(sources, gradients, strict=True):
            relevance = relevance + self.explain(attention, gradient)[:, 0] @ relevance
        cells = (relevance - identity)[:, -height * width :, -height * width :]
        return cells.mean(1).view(-1, 1, height, width)

    def explain(self, features: Tensor, gradient: Tensor) -> Tensor:
        """What one block moves between tokens, `[B, 1, N, N]`, from its attention weights and gradient."""
        return (gradient * features).relu().mean(1, keepdim=True)
