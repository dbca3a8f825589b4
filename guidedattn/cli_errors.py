"""Turns what the config parser says into a few lines that name the key and what it could have been."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import Logger

from guidedattn.component import Component, import_object
from guidedattn.data.sources import Source
from guidedattn.errors import ConfigError, near

MAX_LINES = 4
_FAMILIES = (
    Component, pl.LightningModule, pl.LightningDataModule, pl.Callback, Logger, Source, torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
)  # fmt: skip
_NOISE = re.compile(
    r"^\s*$|either not accessible or invalid$|Does not validate against any|^\s*(Subtypes|Errors|Given value)"
    r"|Expected a <class 'NoneType'>|Expected a valid Callable|Not a valid subclass of"
    r"|Subclass types expect one of|- a (class path|dict) "
)


def shorten(message: str, options: Sequence[str], configs: Sequence[Any] = ()) -> str:
    """The gist of a parser's message, with names close to the misspelt one.

    Args:
        message: what jsonargparse says.
        options: names of the options that the command has.
        configs: the config files as read, to find the place of a key that the message leaves out.

    >>> shorten("Subcommand 'fit' does not accept option 'trainer.max_epoch'", ["trainer.max_epochs"])
    'trainer.max_epoch: no such key (did you mean trainer.max_epochs?)'
    """
    lines = [line for line in message.splitlines() if not _NOISE.search(line)] or message.splitlines()
    text = "\n".join(lines[:MAX_LINES])
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
    return re.sub(r'^Parser key "([\w.]+)":\s*', r"\1: ", text)


def _key(text: str) -> str:
    match = re.search(r'Parser key "([\w.]+)"', text)
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
        for place, class_path in _places(config, name):
            return (
                f"{place}: {class_path or 'this class'} takes no {name}{near(name, _arguments(class_path))}"
            )
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
