"""`guidedattn fit | validate | test | predict`: LightningCLI, with short errors and a record of every run."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning_utilities.core.imports import RequirementCache

from guidedattn import data as _data  # noqa: F401  short class names resolve for what is imported
from guidedattn.callbacks import PredictionWriter, RunRecord, holds_earlier_run
from guidedattn.checkpoints import read_checkpoint
from guidedattn.classifier import GuidedClassifier
from guidedattn.cli_errors import option_names, shorten, words_as_config
from guidedattn.component import import_object
from guidedattn.data import PhantomDataModule
from guidedattn.errors import CheckpointError, ConfigError, GuidedAttnError
from guidedattn.mask_cache import MaskCache as _MaskCache  # noqa: F401  a short class name too
from guidedattn.metrics import MEANING
from guidedattn.segmenter import MaskSegmenter

_DEFAULTS = {"model": {name: p.default for name, p in inspect.signature(GuidedClassifier).parameters.items()}}


class ShortErrorParser(LightningArgumentParser):
    """Says what is wrong in a few lines, without the page of usage."""

    config_files: ClassVar[list[Any]] = []
    words: ClassVar[Sequence[str]] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the gist of `message` with near matches and exit with 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        configs = [_DEFAULTS, *self.config_files, words_as_config(self.words)]
        print(f"guidedattn: error: {shorten(message, option_names(parser), configs)}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)


class TrainingCLI(LightningCLI):
    """LightningCLI with `predict` options, a CSV logger by default and a record of every run."""

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument(
                "--output", type=Path, default="predictions.csv", help="the CSV file to write"
            )
            parser.add_argument(
                "--overlays", type=Path | None, help="folder for one attention overlay per image"
            )
        return parser

    def _parse_ckpt_path(self) -> None:
        """Read a checkpoint before anything is built; the parser cannot hold all that a recipe can."""
        path = self._options().get("ckpt_path")
        if path and path not in ("best", "last", "hpc") and "://" not in str(path):
            read_checkpoint(path)

    def _options(self) -> Any:
        return self.config[self.config["subcommand"]]

    def instantiate_classes(self) -> None:
        """Build data, model and trainer; a checkpoint to measure brings its model, config or not.

        Raises:
            ConfigError: arguments that a component or the trainer refuses.
        """
        options, saved = self._options(), self._saved_class()
        left_out = saved is not None and not self.subclass_mode_model
        given = options.pop("model") if left_out else None
        try:
            self.config_init = self.parser.instantiate_classes(self.config)
        except ValueError as error:  # jsonargparse wraps ours where a class is chosen by its path
            raise error.__cause__ if isinstance(error.__cause__, GuidedAttnError) else error from None
        finally:
            if left_out:
                options["model"] = given
        self.datamodule = self._get(self.config_init, "data")
        self.model = (
            saved.load_from_checkpoint(options.ckpt_path) if saved else self._get(self.config_init, "model")
        )
        if given is not None and isinstance(self.model, GuidedClassifier):
            self.model.robustness = given.robustness  # what to measure is for this run to say
        self._add_configure_optimizers_method_to_model(self.subcommand)
        self.trainer = self.instantiate_trainer()

    def _saved_class(self) -> type[GuidedClassifier] | type[MaskSegmenter] | None:
        """The class to rebuild from `ckpt_path`; None to train, or for a user's own module."""
        options = self._options()
        if self.subcommand == "fit" or not Path(options.get("ckpt_path") or "").is_file():
            return None
        if not self.subclass_mode_model:
            return GuidedClassifier
        chosen = import_object(options.model.class_path)
        return chosen if issubclass(chosen, GuidedClassifier | MaskSegmenter) else None

    def _run_subcommand(self, subcommand: str) -> None:
        """Run, and leave no folder behind if a mistake of the user's ends the run before its first result.

        Raises:
            CheckpointError: the checkpoint to resume from belongs to another model.
            ConfigError: the folder holds an earlier run.
        """
        folder = Path(self.trainer.log_dir or ".")
        fresh, first = not folder.exists(), self.trainer.is_global_zero
        recorded = first and not self.trainer.fast_dev_run and (folder / "config.yaml").exists()  # type: ignore[attr-defined]
        if recorded:  # before a logger opens the folder: CSVLogger removes the metrics that it finds
            raise holds_earlier_run(folder)
        try:
            super()._run_subcommand(subcommand)
        except (GuidedAttnError, RuntimeError) as error:
            misfit = "loading state_dict" in str(error)
            if fresh and first and (misfit or isinstance(error, GuidedAttnError)):
                discard(folder)
            if misfit and not isinstance(error, GuidedAttnError):
                path = self._options().ckpt_path
                raise CheckpointError(
                    f"checkpoint {path} belongs to another model than the config's"
                ) from error
            raise

    def after_test(self) -> None:
        """Say what the instruments that ran prove, and what they do not."""
        measured = {name.removeprefix("test/") for name in self.trainer.callback_metrics}
        lines = [f"  {name}: {meaning}" for name, meaning in MEANING.items() if name in measured]
        if lines and self.trainer.is_global_zero:
            print("\n".join(["What the numbers mean:", *lines]))  # noqa: T201

    def before_instantiate_classes(self) -> None:
        """For `predict`: keep its own options away from the trainer, and refuse to overwrite early."""
        if self.subcommand == "predict":
            output = self.config.predict.output
            if output.is_dir():
                raise ConfigError(f"output {output} is a folder: name a CSV file")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; the default logger writes CSV, and for TensorBoard where that is installed."""
        config = self._get(self.config_init, "trainer", default={})
        if config.get("logger") in (None, True) and not config.get("fast_dev_run"):
            kwargs["logger"] = default_loggers(config.get("default_root_dir") or ".")
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigError(f"trainer: {' '.join(str(error).split()):.300}") from error
        if self.subcommand == "predict":
            options = self.config_init.predict
            trainer.callbacks.append(PredictionWriter(options.output, options.overlays))  # type: ignore[attr-defined]
        return trainer


def default_loggers(root: str | Path) -> list[Logger]:
    """A CSV logger in `root`/lightning_logs, and a TensorBoard logger in the same folder if installed."""
    csv = CSVLogger(root)
    if not RequirementCache("tensorboard"):
        return [csv]
    return [csv, TensorBoardLogger(root, name=csv.name, version=f"version_{csv.version}")]


def discard(folder: Path) -> None:
    """Remove a run's folder that holds no result, and the folder of runs if it is empty then."""
    if any(path.name == "metrics.csv" or path.suffix == ".ckpt" for path in folder.rglob("*")):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.name == "lightning_logs" and folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def run(words: Sequence[str]) -> None:
    """Run one of Lightning's subcommands.

    Raises:
        ConfigError: a config file cannot be read as YAML.
        SystemExit: with 2, after a short message, for whatever the parser refuses.
    """
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # tests call from Python
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")  # by design
    configs = read_configs(words)
    own_model = _names_class("model", words, configs)
    own_data = _names_class("data", words, configs)
    ShortErrorParser.config_files, ShortErrorParser.words = configs, words
    TrainingCLI(
        LightningModule if own_model else GuidedClassifier,
        LightningDataModule if own_data else PhantomDataModule,
        subclass_mode_model=own_model,
        subclass_mode_data=own_data,
        save_config_callback=RunRecord,
        parser_class=ShortErrorParser,
        parser_kwargs={"prog": "guidedattn", "allow_abbrev": False},
        seed_everything_default=0,
        auto_configure_optimizers=False,
        args=None if list(words) == sys.argv[1:] else list(words),
    )


def read_configs(words: Sequence[str]) -> list[Any]:
    """Read the files given by `--config`; one that does not exist is left to the parser to name.

    Raises:
        ConfigError: a file is not valid YAML, or holds more than plain values.
    """
    files = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-c", "--config")]
    files += [word.partition("=")[2] for word in words if word.startswith("--config=")]
    configs = []
    for file in files:
        try:
            configs.append(yaml.safe_load(Path(file).read_text()) if Path(file).is_file() else None)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split()):.200}") from error
    return configs


def _names_class(key: str, words: Sequence[str], configs: Sequence[Any]) -> bool:
    """Whether an option or a config names the class of `model` or `data`.

    With a fixed class instead of any subclass, a misspelt key costs a line of error instead of sixty.
    """
    if any(re.match(rf"--{key}(\.class_path)?(=|$)", word) for word in words):
        return True
    sections = [config.get(key) for config in configs if isinstance(config, dict)]
    return any(isinstance(section, str) or "class_path" in (section or {}) for section in sections)
