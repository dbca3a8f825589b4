"""`guidedattn fit | validate | test | predict`: LightningCLI, with short errors and a record of every run."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning_utilities.core.imports import RequirementCache

from guidedattn import data as _data  # noqa: F401  short class names resolve for what is imported
from guidedattn.callbacks import PredictionWriter, RunRecord
from guidedattn.classifier import GuidedClassifier
from guidedattn.cli_errors import shorten
from guidedattn.data import PhantomDataModule
from guidedattn.errors import ConfigError
from guidedattn.segmenter import MaskSegmenter  # noqa: F401  short class name


class ShortErrorParser(LightningArgumentParser):
    """Says what is wrong in a few lines, without the page of usage."""

    config_files: ClassVar[list[Any]] = []

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the gist of `message` with near matches and exit with 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        names = [name for action in parser._actions for name in action.option_strings]
        options = [name.removeprefix("--") for name in names if not name.endswith(("+", ".help"))]
        print(f"guidedattn: error: {shorten(message, options, self.config_files)}", file=sys.stderr)  # noqa: T201
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
        trainer = super().instantiate_trainer(**kwargs)
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


def run(words: Sequence[str]) -> None:
    """Run one of Lightning's subcommands.

    Raises:
        ConfigError: a config file cannot be read as YAML.
        SystemExit: with 2, after a short message, for whatever the parser refuses.
    """
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # tests call from Python
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")  # Lightning's own use of torch
    configs = read_configs(words)
    own_model = _names_class("model", words, configs)
    own_data = _names_class("data", words, configs)
    ShortErrorParser.config_files = configs
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
