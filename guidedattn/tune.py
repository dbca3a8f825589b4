"""`guidedattn tune`: search anything in a config by its dotted key; the one module that imports optuna.

A call with the same --output (or --storage) joins the search: it goes on where the last one stopped, and
several calls, on several machines, share one search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import EarlyStopping
from rich.console import Console

from guidedattn.arguments import model_arguments, with_value
from guidedattn.classifier import GuidedClassifier
from guidedattn.cli_errors import ShortParser
from guidedattn.data import ImageDataModule
from guidedattn.errors import ConfigError
from guidedattn.files import whole_file
from guidedattn.jobs import quieten
from guidedattn.launchers import add_job_options, build_launcher

if TYPE_CHECKING:
    from optuna import Study, Trial

NAME = "guidedattn"


def parser() -> ShortParser:
    """The options of the command.

    Raises:
        ConfigError: optuna is not installed.
    """
    optuna = _optuna()
    options = ShortParser(prog="guidedattn tune", description=__doc__)
    options.add_argument("--config", action="config", help="a YAML file of these options; may come twice")
    options.add_argument("--data", type=ImageDataModule, required=True, help="any data module")
    options.add_class_arguments(GuidedClassifier, "model", instantiate=False)
    options.add_argument(
        "--search",
        type=dict,
        required=True,
        help="from a dotted key (model.optimizer.init_args.lr) to {choices: [...]}, or low, high, log, step",
    )
    options.add_argument("--monitor", type=str, default="val/accuracy", help="the logged value that counts")
    options.add_argument("--direction", type=str, default="maximize", help="or minimize")
    options.add_argument("--trials", type=int, default=20, help="finished trials in all, over all calls")
    options.add_argument("--epochs", type=int, default=20, help="of a trial, at most")
    options.add_argument("--patience", type=int, default=10, help="epochs without a better val/loss")
    options.add_argument("--sampler", type=optuna.samplers.BaseSampler | None, default=None, help="TPE")
    options.add_argument("--pruner", type=optuna.pruners.BasePruner | None, default=None, help="median")
    options.add_argument("--seed", type=int, default=0, help="of every trial's weights and order")
    options.add_argument("--storage", type=str | None, default=None, help="an SQLAlchemy URL; SQLite without")
    add_job_options(options, "trials", "guidedattn_tune")
    return options


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError("tune needs optuna: pip install 'guidedattn[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def suggest(trial: Trial, key: str, space: Mapping[str, Any]) -> Any:
    """A value for a key: one of `choices`, or between `low` and `high` (whole numbers give whole numbers).

    Raises:
        ConfigError: the space is neither.
    """
    if set(space) == {"choices"}:
        return trial.suggest_categorical(key, list(space["choices"]))
    if not {"low", "high"} <= set(space) <= {"low", "high", "log", "step"}:
        raise ConfigError(f"search: {key} needs choices, or low and high (log, step), not {dict(space)}")
    whole = isinstance(space["low"], int) and isinstance(space["high"], int)
    given = {name: value for name, value in space.items() if name != "step" or value is not None}
    try:
        return trial.suggest_int(key, **given) if whole else trial.suggest_float(key, **given)
    except ValueError as error:
        raise ConfigError(f"search: {key}: {error}") from error


class Search:
    """A search over a command line's config.

    Args:
        words: the command line, which every process parses again.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.options = parser().parse_args(list(words))
        self.settings = {
            "data": self.options.data.as_dict(),
            "model": model_arguments("model", self.options.model.as_dict()),
        }
        for key in self.options.search:
            with_value(self.settings, key, None)  # raises where there is no such place

    def open(self) -> Study:
        """The search in its storage, made if it is not there."""
        optuna, options = _optuna(), self.options
        del options["model"]
        built = parser().instantiate(options)
        url = options.storage or f"sqlite:///{(options.output / 'trials.db').resolve()}"
        study: Study = optuna.create_study(
            storage=url,
            study_name=NAME,
            load_if_exists=True,
            direction=options.direction,
            sampler=built.sampler,
            pruner=built.pruner,
        )
        return study

    def with_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The config with these values at their dotted keys."""
        settings = self.settings
        for key, value in values.items():
            settings = with_value(settings, key, value)
        return settings

    def train(self, trial: Trial) -> float:
        """One trial; the value that counts, at its best epoch."""
        values = {key: suggest(trial, key, space) for key, space in self.options.search.items()}
        settings = self.with_values(values)
        pl.seed_everything(self.options.seed, workers=True, verbose=False)
        only_data = ArgumentParser(exit_on_error=False)
        only_data.add_argument("--data", type=ImageDataModule)
        data = only_data.instantiate(only_data.parse_object({"data": settings["data"]})).data
        data.setup("fit")
        names = {"num_classes": data.num_classes, "class_names": data.class_names}
        watch = _Watch(trial, self.options.monitor, self.options.direction)
        trainer = pl.Trainer(
            max_epochs=self.options.epochs, logger=False, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=False, num_sanity_val_steps=0,
            callbacks=[EarlyStopping("val/loss", patience=self.options.patience), watch],
        )  # fmt: skip
        trainer.fit(GuidedClassifier(**{**settings["model"], **names}), data)
        return watch.best


class _Watch(pl.Callback):
    """Reports every epoch, and ends a trial that has no prospects."""

    def __init__(self, trial: Trial, monitor: str, direction: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.better = max if direction == "maximize" else min
        self.values: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Report; prune where the pruner says so."""
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ConfigError(f"nothing is logged as {self.monitor}: {known}")
        self.values.append(float(trainer.callback_metrics[self.monitor]))
        self.trial.report(self.values[-1], trainer.current_epoch)
        if self.trial.should_prune():
            raise _optuna().TrialPruned

    @property
    def best(self) -> float:
        """The best epoch's value."""
        return self.better(self.values)


def work(words: Sequence[str]) -> None:
    """Do trials until there are enough, together with whoever shares the storage."""
    quieten()
    search, optuna = Search(words), _optuna()
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    study, number = search.open(), search.options.trials
    if len(study.get_trials(deepcopy=False, states=states)) < number:
        enough = optuna.study.MaxTrialsCallback(number, states=states)
        study.optimize(search.train, callbacks=[enough])


def run(words: Sequence[str]) -> None:
    """Search; leave `trials.csv`, `best.yaml` (to `fit`) and `best.json` in the output folder.

    Raises:
        ConfigError: a key or space that does not fit, or trials that failed.
    """
    words = list(words[1:])
    search = Search(words)
    output, launcher = search.options.output, build_launcher(search.options)
    for key, space in search.options.search.items():
        suggest(_optuna().trial.FixedTrial({key: _any_of(space)}), key, space)
    output.mkdir(parents=True, exist_ok=True)
    study = search.open()
    console = Console()
    with console.status("searching"):
        jobs = {f"worker {i}": (words,) for i in range(search.options.jobs)}
        errors = launcher.run(work, jobs, output / "jobs")
    for error in errors.values():
        raise ConfigError(f"a trial failed: {' '.join(str(error).split()):.300}") from error
    with whole_file(output / "trials.csv") as file:
        study.trials_dataframe(attrs=("number", "value", "state", "params")).to_csv(file, index=False)
    with whole_file(output / "best.yaml") as file:
        yaml.safe_dump(json.loads(json.dumps(search.with_values(study.best_params), default=str)), file)
    with whole_file(output / "best.json") as file:
        json.dump({"value": study.best_value, "trial": study.best_trial.number, **study.best_params}, file)
    console.print(f"{search.options.monitor} {study.best_value:.4f} with {study.best_params}: {output}")


def _any_of(space: Mapping[str, Any]) -> Any:
    return space["choices"][0] if space.get("choices") else space.get("low")
