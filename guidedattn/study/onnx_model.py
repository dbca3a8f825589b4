"""A model in an ONNX file as a comparator; the one module that imports onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidedattn.errors import ConfigError
from guidedattn.study.comparators import ImageModel


class ONNXModel(ImageModel):
    """A model in an ONNX file, with its own input size and normalisation.

    Args:
        file: its first input takes images, its first output gives `[B, K]`.
        image_size: of its input.
        mean: per channel, of images in [0, 1]; three make colour of grey.
        std: per channel.
        channels_last: whether it takes `[B, H, W, C]`, as networks from TensorFlow do.
        softmax: whether its output is logits.
        classes: see `ImageModel`.
        parameters: see `ImageModel`.
    """

    def __init__(
        self,
        file: str | Path,
        image_size: int | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        channels_last: bool = False,
        softmax: bool = False,
        classes: Sequence[str] | None = None,
        parameters: float | None = None,
    ) -> None:
        super().__init__(image_size, classes, parameters)
        self.file, self.mean, self.std = Path(file), tuple(mean), tuple(std)
        self.channels_last, self.softmax = channels_last, softmax
        self._session: Any = None

    def answer(self, images: Tensor) -> Tensor:
        """Normalise and run."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        given = (images.expand(-1, len(self.mean), -1, -1) - mean) / std
        given = given.permute(0, 2, 3, 1) if self.channels_last else given
        session = self._opened()
        output = torch.as_tensor(
            session.run(None, {session.get_inputs()[0].name: given.contiguous().numpy()})[0]
        )
        return output.softmax(1) if self.softmax else output

    def _opened(self) -> Any:
        if self._session is None:
            try:
                import onnxruntime
            except ImportError:
                raise ConfigError("ONNX models need onnxruntime: pip install 'guidedattn[onnx]'") from None
            try:
                self._session = onnxruntime.InferenceSession(
                    str(self.file), providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                raise ConfigError(f"{self.file}: {' '.join(str(error).split()):.200}") from error
        return self._session
