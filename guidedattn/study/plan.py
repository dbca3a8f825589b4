"""Which runs a study has, which are done, and what identifies one."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from guidedattn.arguments import model_arguments
from guidedattn.errors import ConfigError
from guidedattn.study.options import Stage

VERSION = 3
"""Part of every run's digest: raise it when runs train or measure otherwise."""

RUN_KEYS = ("stage", "body", "arm", "seed")


def slug(name: str) -> str:
    """A name as part of a file's.

    >>> slug("VGG 16/a")
    'VGG_16_a'
    """
    return re.sub(r"[^\w.+-]+", "_", name)


def record(folder: Path, name: str) -> Path:
    """What a finished run says of itself; a run is finished if this file is there.

    Args:
        folder: of all runs.
        name: of the run.
    """
    return folder / name / "run.json"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        stage: 1, 2 or 3.
        body: its name in the tables.
        arm: the kind of guidance; empty before stage III.
        seed: of initial weights, dropout and augmentation.
        arguments: of `GuidedClassifier`, in full, as plain values.
        image_size: None for the data's own.
        training: epochs and patience.
        views: augmented views of stage I's features.
        settings: digest of all that the result depends on, the run that it starts from included.
        start: the run whose weights it starts from, if any.
    """

    stage: int
    body: str
    arm: str
    seed: int
    arguments: Mapping[str, Any]
    image_size: int | None
    training: Stage
    views: int
    settings: str
    start: str | None

    @property
    def name(self) -> str:
        """Name of its folder."""
        parts = (f"stage{self.stage}", self.body, self.arm, f"seed{self.seed}")
        return "-".join(slug(part) for part in parts if part)


class Plan:
    """All runs of a study.

    Args:
        options: as parsed.
        data_digest: identifies the images, their labels and their splits.

    Raises:
        ConfigError: an argument that the classifier does not take, or two runs of one name.
    """

    def __init__(self, options: Namespace, data_digest: str) -> None:
        self.options = options
        self.folder = Path(options.output) / "runs"
        shared = [VERSION, data_digest, *(options[key] for key in ("data", "external", "trainer"))]
        self._arguments: dict[tuple[int, str, str], dict[str, Any]] = {}
        self._shared = json.dumps(shared, default=_plain, sort_keys=True)
        self.first = [self._run(1, body, "", seed) for body in options.bodies for seed in options.seeds]
        # Whatever may be chosen: a mistake in an arm shows before the first hour of training.
        self.possible = [*self.first, *self.second(options.bodies), *self.third(options.bodies)]
        names = [run.name for run in self.possible]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two runs would be called {name}: choose other names for bodies or arms")

    def second(self, bodies: Sequence[str]) -> list[Run]:
        """Stage II of these bodies."""
        return [self._run(2, body, "", seed) for body in bodies for seed in self.options.seeds]

    def third(self, bodies: Sequence[str]) -> list[Run]:
        """Stage III of these bodies, in every arm."""
        seeds, arms = self.options.seeds, self.options.arms
        return [self._run(3, body, arm, seed) for body in bodies for arm in arms for seed in seeds]

    def _run(self, stage: int, body: str, arm: str, seed: int) -> Run:
        image_size, training = self.options.bodies[body].get("image_size"), self._stage(stage)
        if (stage, body, arm) not in self._arguments:
            self._arguments[stage, body, arm] = self._arguments_of(stage, body, arm)
        arguments = self._arguments[stage, body, arm]
        start = self._run(stage - 1, body, "", seed) if stage > 1 else None
        views = self.options.views if stage == 1 else 1
        depends = [
            stage, body, arm, seed, arguments, image_size, training.epochs, training.patience, views,
            None if start is None else start.settings, self._shared,
        ]  # fmt: skip
        settings = hashlib.sha256(json.dumps(depends, sort_keys=True, default=_plain).encode()).hexdigest()
        return Run(
            stage, body, arm, seed, arguments, image_size, training, views, settings,
            None if start is None else start.name,
        )  # fmt: skip

    def _stage(self, stage: int) -> Stage:
        given = self.options[f"stage{stage}"]
        return Stage(**given.as_dict()) if isinstance(given, Namespace) else given

    def _arguments_of(self, stage: int, body: str, arm: str) -> dict[str, Any]:
        own = {key: value for key, value in self.options.bodies[body].items() if key != "image_size"}
        given = {**self.options.model.as_dict(), **own, **self._stage(stage).model}
        given |= self.options.arms[arm] if arm else {}
        where = " ".join(part for part in (f"stage{stage}", body, arm) if part)
        return {**model_arguments(where, given), "freeze_backbone": stage == 1}

    def result(self, run: Run) -> dict[str, Any] | None:
        """What a finished run says of itself, None if it is not finished.

        Raises:
            ConfigError: it was made with other settings.
        """
        path = record(self.folder, run.name)
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        if found["settings"] != run.settings:
            raise ConfigError(
                f"{path.parent} holds a run of other settings or data: choose another --output or remove it"
            )
        return found

    def choose(self, results: Sequence[Mapping[str, Any]]) -> list[str]:
        """The most accurate bodies on validation, by the mean over the seeds; the first listed wins a tie."""
        accuracies: dict[str, list[float]] = {body: [] for body in self.options.bodies}
        for result in results:
            accuracies[result["body"]].append(result["val_accuracy"])
        best = sorted(accuracies, key=lambda body: -statistics.fmean(accuracies[body]))
        return [body for body in accuracies if body in best[: self.options.select]]


def _plain(value: Any) -> Any:
    """For JSON: namespaces as dicts, all else as text."""
    return value.as_dict() if isinstance(value, Namespace) else str(value)
