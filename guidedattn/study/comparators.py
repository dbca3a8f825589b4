"""Models from elsewhere, judged on the study's split beside its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from guidedattn.component import import_object
from guidedattn.data import ImageDataModule
from guidedattn.errors import ConfigError, DataError
from guidedattn.study.predictions import patients


class Comparator(ABC):
    """Base of the models from elsewhere.

    Args:
        parameters: millions, as their authors report them; for table 2.

    Attributes:
        image_size: that the data are read at; None for the study's own.
    """

    image_size: int | None = None

    def __init__(self, parameters: float | None = None) -> None:
        self.parameters = parameters

    @abstractmethod
    def probabilities(
        self, data: ImageDataModule, split: Any, class_names: Sequence[str]
    ) -> dict[str, Sequence[float]] | None:
        """From each image's path of a split to its K probabilities; None if nothing is known of the split.

        Raises:
            DataError: something is known of some images of the split only.
        """

    def judge(self, data: ImageDataModule, split: Any, class_names: Sequence[str]) -> pd.DataFrame | None:
        """Predictions on a split as a table of `path, patient, label, predicted, prob_<class>...`."""
        said = self.probabilities(data, split, class_names)
        if said is None:
            return None
        table, patient = data.manifest(), patients(data)
        rows = []
        for path, label in table.loc[table["split"] == split, ["path", "label"]].itertuples(index=False):
            values = np.asarray(said[path], dtype=float)
            named = {f"prob_{name}": value for name, value in zip(class_names, values, strict=True)}
            predicted = class_names[int(values.argmax())]
            rows.append(
                {"path": path, "patient": patient[path], "label": label, "predicted": predicted, **named}
            )
        return pd.DataFrame(rows)


class NoPredictions(Comparator):
    """A model that is known by name only: its rows say that no predictions were given."""

    def probabilities(
        self,
        data: ImageDataModule,  # noqa: ARG002
        split: Any,  # noqa: ARG002
        class_names: Sequence[str],  # noqa: ARG002
    ) -> None:
        """Nothing."""
        return


class CSVPredictions(Comparator):
    """A table of `path` and `prob_<class>` for every class, as `guidedattn predict` writes it.

    Args:
        file: the table; its paths are the study's, or file names that occur once in it and in the split.
        parameters: millions, as reported.
    """

    def __init__(self, file: str | Path, parameters: float | None = None) -> None:
        super().__init__(parameters)
        self.file = Path(file)

    def probabilities(
        self, data: ImageDataModule, split: Any, class_names: Sequence[str]
    ) -> dict[str, Sequence[float]] | None:
        """Look the images up by path, or by file name."""
        columns = [f"prob_{name}" for name in class_names]
        try:
            table = pd.read_csv(self.file)
            known = dict(zip(table["path"].astype(str), table[columns].to_numpy().tolist(), strict=True))
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.file} needs the columns path, {', '.join(columns)}: {error}") from error
        manifest = data.manifest()
        paths = manifest.loc[manifest["split"] == split, "path"]
        by_name = {Path(path).name: values for path, values in known.items()}
        unique = len(by_name) == len(known) and len({Path(path).name for path in paths}) == len(paths)
        found = {path: known.get(path, by_name.get(Path(path).name) if unique else None) for path in paths}
        missing = [path for path, values in found.items() if values is None]
        if len(missing) == len(found):
            return None
        if missing:
            raise DataError(f"{self.file} lacks {len(missing)} of {len(found)} {split} images: {missing[0]}")
        return {path: values for path, values in found.items() if values is not None}


class ImageModel(Comparator):
    """Base of the models that see the study's images.

    Args:
        image_size: of the images it takes.
        classes: its classes in the order of its outputs; the study's order without it.
        parameters: millions, as reported.
    """

    def __init__(
        self,
        image_size: int | None = None,
        classes: Sequence[str] | None = None,
        parameters: float | None = None,
    ) -> None:
        super().__init__(parameters)
        self.image_size, self.classes = image_size, classes

    @abstractmethod
    def answer(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] to probabilities `[B, K]`, K in the order of `classes`."""

    def probabilities(
        self, data: ImageDataModule, split: Any, class_names: Sequence[str]
    ) -> dict[str, Sequence[float]] | None:
        """Ask the model.

        Raises:
            ConfigError: its classes are not the study's, or its answer has another shape.
        """
        own = list(self.classes or class_names)
        if sorted(own) != sorted(class_names):
            raise ConfigError(f"classes {', '.join(own)} are not the study's {', '.join(class_names)}")
        order, found = [own.index(name) for name in class_names], {}
        data.predict_split = split
        for batch in data.predict_dataloader():
            answer = self.answer(batch["image"])
            if answer.shape != (len(batch["path"]), len(own)):
                wanted = f"[{len(batch['path'])}, {len(own)}]"
                raise ConfigError(f"{type(self).__name__} answers {list(answer.shape)}, expected {wanted}")
            for path, values in zip(batch["path"], answer[:, order].tolist(), strict=True):
                found[str(path)] = values
        return found


class PythonModel(ImageModel):
    """Any function `(images [B, C, H, W] in [0, 1]) -> probabilities [B, K]`.

    Args:
        function: its import path, `module.name`.
        image_size: see `ImageModel`.
        classes: see `ImageModel`.
        parameters: see `ImageModel`.
    """

    def __init__(
        self,
        function: str,
        image_size: int | None = None,
        classes: Sequence[str] | None = None,
        parameters: float | None = None,
    ) -> None:
        super().__init__(image_size, classes, parameters)
        self.function = function

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Call the function."""
        return torch.as_tensor(import_object(self.function)(images))


def judge_comparators(
    comparators: Mapping[str, Comparator],
    sets: Mapping[str, str],
    build: Callable[[str, int | None], tuple[ImageDataModule, str]],
    class_names: Sequence[str],
) -> dict[str, dict[str, pd.DataFrame]]:
    """What every comparator says, by its name and the set's key, for the sets that it knows.

    Args:
        comparators: by name.
        sets: from the key to the name of each set.
        build: from a set's name and an image size to its data module, ready, and the split.
        class_names: K names.
    """
    said: dict[str, dict[str, pd.DataFrame]] = {}
    for name, comparator in comparators.items():
        tables = {
            key: comparator.judge(*build(set_name, comparator.image_size), class_names)
            for key, set_name in sets.items()
        }
        said[name] = {key: table for key, table in tables.items() if table is not None}
    return said
