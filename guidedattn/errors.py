"""Errors that a user can mend: one short message that names what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class GuidedAttnError(Exception):
    """A mistake in a config, a file or a call; the command line prints it and exits with 2."""


class ConfigError(GuidedAttnError, ValueError):
    """A wrong argument, class path or combination of components."""


class DataError(GuidedAttnError, ValueError):
    """An image, mask, label or table that cannot be used; names the file or sample."""


class MaskError(GuidedAttnError, ValueError):
    """A mask of the wrong shape, range or content; names the provider and the sample."""


class CheckpointError(GuidedAttnError, RuntimeError):
    """A checkpoint or weights file that cannot be read or does not fit."""


def near(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean a, b?)`` for the names in `known` close to `name`, else an empty string.

    >>> near("MultiplyGat", ["MultiplyGate", "OpenGate"])
    ' (did you mean MultiplyGate?)'
    >>> near("zebra", ["MultiplyGate"])
    ''
    """
    matches = get_close_matches(name, list(known), n=3)
    return f" (did you mean {', '.join(matches)}?)" if matches else ""
