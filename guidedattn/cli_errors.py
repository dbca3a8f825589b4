"""Turns what the config parser says into a few lines that name the key and what it could have been."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import Logger

from guidedattn.component import Component, import_object
from guidedattn.data.markers import Marker
from guidedattn.data.sources import Source
from guidedattn.errors import ConfigError, near

MAX_LINES = 4
_FAMILIES = (
    Component, pl.LightningModule, pl.LightningDataModule, pl.Callback, Logger, Marker, Source,
    torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler,
)  # fmt: skip
_NOISE = re.compile(
    r"^\s*$|either not accessible or invalid$|Does not validate against any|^\s*(Subtypes|Errors|Given value)"
    r"|Expected a <class 'NoneType'>|Expected a valid Callable|Not a valid subclass of"
    r"|Subclass types expect one of|- a (class path|dict) "
)


class ShortParser(ArgumentParser):
    """A parser that says what is wrong in a few lines, without the page of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what the command line prints.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{shorten(message, option_names(self))}; see {self.prog} --help") from ex


def option_names(parser: ArgumentParser) -> list[str]:
    """Names of the options that a parser has, without dashes."""
    names = [name for action in parser._actions for name in action.option_strings]
    return [name.removeprefix("--") for name in names if not name.endswith(("+", ".help"))]


def shorten(message: str, options: Sequence[str], configs: Sequence[Any] = ()) -> str:
    """The gist of a parser's message, with names close to the misspelt one.

    Args:
        message: what jsonargparse says.
        options: names of the options that the command has.
        configs: the config files as read, to find the place of a key that the message leaves out.

    >>> shorten("Subcommand 'fit' does not accept option 'trainer.max_epoch'", ["trainer.max_epochs"])
    'trainer.max_epoch: no such key (did you mean trainer.max_epochs?)'
    """
    if match := re.match(r'Parser key "(\w+)"', message):  # the last word of a dotted key
        places = (place for config in reversed(configs) for place, _ in _places(config, match[1]))
        message = f'Parser key "{next(places, match[1])}"' + message.removeprefix(match[0])
    lines = [line for line in message.splitlines() if not _NOISE.search(line)] or message.splitlines()
    text = "\n".join(lines[:MAX_LINES])
    refused = re.search(r"Not a valid subclass of (\w+)\. Got value: (.+)", message)
    if refused and text.endswith(":"):  # all the rest was noise
        return f"{_key(text)}expected the class path of a {refused[1]}, got {refused[2]:.60}"
    if match := re.search(
        r"unrecognized arguments: (?:--)?([\w.+]+)|does not accept option '([\w.]+)'", text
    ):
        name = match[1] or match[2]
        return f"{name}: no such key{_near_key(name, options)}"
    if match := re.search(r"Expected a dot import path string: (\S+)|has no attribute '(\w+)'", text):
        name = match[1] or match[2]
        classes = {cls.__name__ for cls in _descendants(*_FAMILIES)}
        return f"{_key(text)}no class {name}{near(name, classes)}"
    if match := re.search(r"(?:Option|Key) '([\w.]+)' is not (?:accepted|expected)", text):
        return _refused_argument(match[1], text, configs)
    return re.sub(r'^Parser key "([\w.[\]]+)":\s*', r"\1: ", text)


def _key(text: str) -> str:
    match = re.search(r'Parser key "([\w.[\]]+)"', text)
    return f"{match[1]}: " if match else ""


def _near_key(name: str, options: Sequence[str]) -> str:
    """Near matches among the options; for `model.backbon.name` that is `model.backbone`."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if found := near(".".join(parts[:length]), [o for o in options if o.count(".") == length - 1]):
            return found
    return ""


def _refused_argument(name: str, text: str, configs: Sequence[Any]) -> str:
    """Name the place and the class of an argument that a class does not have."""
    if match := re.search(r"class_path '([\w.]+)'", text):
        return f"{_key(text)}{match[1]} takes no {name}{near(name, _arguments(match[1]))}"
    for config in configs:
        for place, found in _places(config, name):
            class_path = found or _class_at(place, configs)
            known = near(name, _arguments(class_path))
            return f"{place}: {class_path.rpartition('.')[2] or 'this class'} takes no {name}{known}"
    return f"{_key(text)}{name}: no such argument"


def _places(tree: Any, name: str, place: str = "", class_path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted places of the key `name` in a config, with the class that it is given to."""
    if isinstance(tree, Mapping):
        class_path = str(tree.get("class_path", class_path))
        for key, value in tree.items():
            here = f"{place}.{key}".removeprefix(".")
            if key == name:
                yield here, class_path
            yield from _places(value, name, here, class_path)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _places(value, name, f"{place}[{index}]", class_path)


def words_as_config(words: Sequence[str]) -> dict[str, Any]:
    """Options of a command line as a config, to find the place of a key that a message leaves out.

    >>> words_as_config(["fit", "--model.gate", "MultiplyGate", "--model.gate.flor", "1"])
    {'model': {'gate': {'class_path': 'MultiplyGate', 'flor': '1'}}}
    """
    tree: dict[str, Any] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if not (match := re.match(r"--([\w.]+)\+?(?:=(.*))?$", word)):
            continue
        value = following if match[2] is None else match[2]
        here = tree
        *parents, name = match[1].split(".")
        for place in parents:
            if not isinstance(here.get(place), dict):
                here[place] = {}
            here = here[place]
        here[name] = {"class_path": value} if re.match(r"[A-Z]\w+$|\w+\.[\w.]+$", value) else value
    return tree


def _class_at(place: str, configs: Sequence[Any]) -> str:
    """The class path that the last config gives to the parent of the key at a dotted place, or nothing."""
    for config in reversed(configs):
        for part in place.removesuffix(".init_args").split(".")[:-1]:
            config = config.get(part) if isinstance(config, Mapping) else None
        if isinstance(config, Mapping) and "class_path" in config:
            return str(config["class_path"])
    return ""


def _descendants(*roots: type) -> set[type]:
    found: set[type] = set()
    for root in roots:
        found.update(root.__subclasses__())
    return found | (_descendants(*found) if found else set())


def _arguments(class_path: str) -> list[str]:
    """Names of the arguments of a class, given by its full path or by the short name of a known class."""
    by_name = {cls.__name__: cls for cls in _descendants(*_FAMILIES)}
    try:
        cls = by_name.get(class_path) or import_object(class_path)
    except ConfigError:
        return []
    names = ArgumentParser().add_class_arguments(cls, "it", fail_untyped=False)
    return [name.removeprefix("it.") for name in names]
