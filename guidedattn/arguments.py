"""Arguments of `GuidedClassifier` as plain values: whole, checked, and changed at a dotted key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jsonargparse import ArgumentParser

from guidedattn.classifier import GuidedClassifier
from guidedattn.errors import ConfigError


@cache
def _classifier_parser() -> ArgumentParser:
    model = ArgumentParser(exit_on_error=False)
    model.add_class_arguments(GuidedClassifier)
    return model


def model_arguments(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `GuidedClassifier` in full, with whole class paths.

    Raises:
        ConfigError: an argument that it does not take.
    """
    try:
        return dict(_classifier_parser().parse_object(dict(given)).as_dict())
    except Exception as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split()):.300}") from error


def with_value(recipe: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of a recipe in which a dotted key, list positions included, has another value.

    Raises:
        ConfigError: there is no such place.

    >>> with_value({"losses": [{"weight": 1}]}, "losses.0.weight", 5)
    {'losses': [{'weight': 5}]}
    """
    copy: dict[str, Any] = json.loads(json.dumps(recipe))
    here: Any = copy
    *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    try:
        for part in parents:
            here = here[part]
        here[last] = value
    except (KeyError, IndexError, TypeError) as error:
        raise ConfigError(f"tune: the recipe has no {key}") from error
    return copy
