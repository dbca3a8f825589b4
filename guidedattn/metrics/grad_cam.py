"""What pytorch-grad-cam measures better than we would; the one module that imports it (extra `explain`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guidedattn.errors import ConfigError
from guidedattn.guidance import Guidance, is_dead, normalise, resize, to_probabilities


def road(guidance: Guidance, percentiles: Sequence[int] = (20, 40, 60, 80)) -> Tensor:
    """ROAD (Rong et al. 2022): is what the map shows what the prediction needs, inside the mask or not?

    The pixels that the map ranks highest, and then those it ranks lowest, are replaced by blends of their
    neighbours, which leaves no hole to see; the value is half the difference of the class's probability
    without the lowest and without the highest. It judges the map, not where the network looks.

    Args:
        guidance: of a batch, from a model in eval mode.
        percentiles: shares in percent of the pixels that stay; the result is the mean over them. Each solves
            a linear system per image: about a second at 224 x 224.

    Returns:
        `[B]`, above 0 where the map is better than its opposite; NaN where it is dead.

    Raises:
        ConfigError: pytorch-grad-cam is not installed.
    """
    measure = _library().metrics.road.ROADCombined(percentiles=list(percentiles))
    maps = normalise(resize(guidance.attention.detach().relu(), guidance.images))
    dead = is_dead(guidance.attention.relu())
    ranks = torch.linspace(0, 1, maps[0].numel(), device=maps.device).view(maps[0].shape)
    maps = torch.where(dead.view(-1, 1, 1, 1), ranks, maps)  # the library fails on a constant map
    chosen = [_Probability(int(index), guidance.multi_label) for index in guidance.class_index]
    scores = measure(guidance.images.detach(), maps[:, 0].cpu().numpy(), chosen, guidance.rescore)
    return torch.where(dead, torch.nan, torch.as_tensor(np.asarray(scores), device=maps.device))


def library_maps(backbone: nn.Module, head: nn.Module, images: Tensor, class_index: Tensor) -> Tensor:
    """The library's Grad-CAM `[B, H, W]`, enlarged and normalised, of a backbone and a head without a gate.

    Raises:
        ConfigError: pytorch-grad-cam is not installed.
    """
    library = _library()
    targets = [library.utils.model_targets.ClassifierOutputTarget(int(index)) for index in class_index]
    with library.GradCAM(model=nn.Sequential(backbone, head), target_layers=[backbone]) as cam:
        return torch.as_tensor(cam(input_tensor=images, targets=targets))


class _Probability:
    """Logits `[K]` of one image to the probability of a class."""

    def __init__(self, index: int, multi_label: bool) -> None:
        self.index, self.multi_label = index, multi_label

    def __call__(self, logits: Tensor) -> Tensor:
        return to_probabilities(logits[None], self.multi_label)[0, self.index]


def _library() -> Any:
    try:
        import pytorch_grad_cam
        import pytorch_grad_cam.metrics.road
        import pytorch_grad_cam.utils.model_targets
    except ImportError as error:
        raise ConfigError("this needs pytorch-grad-cam: pip install 'guidedattn[explain]'") from error
    return pytorch_grad_cam
