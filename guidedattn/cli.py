"""The command line: `guidedattn <command> ...`; nothing heavy is imported before the command is known."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from guidedattn.errors import GuidedAttnError, near

COMMANDS = {
    "fit": ("guidedattn.training", "train a classifier or a mask network from a config"),
    "validate": ("guidedattn.training", "measure a checkpoint on the validation split"),
    "test": ("guidedattn.training", "measure a checkpoint on the test split"),
    "predict": ("guidedattn.training", "write predictions.csv, and attention overlays if asked"),
    "data": ("guidedattn.data_cli", "list, build, verify and prepare the images of a collection"),
    "demo": ("guidedattn.demo", "plain against guided on generated phantoms; needs no data"),
    "shortcut": ("guidedattn.shortcut", "which guidance survives a marker that betrays the class"),
    "study": (
        "guidedattn.study",
        "the paper's three stages over any bodies, with tables, figures and a report",
    ),
    "tune": ("guidedattn.tune", "search anything in a config by its dotted key"),
    "bench": ("guidedattn.bench", "what guidance costs on this machine, as ratios to a plain step"),
}


def usage() -> str:
    """The text of `guidedattn --help`."""
    commands = "\n".join(f"  {name:10}{text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: guidedattn <command> [options]\n\n"
        "Train image classifiers that look where they should.\n\n"
        f"commands:\n{commands}\n\n"
        "`guidedattn <command> --help` lists the options of a command.\n"
        "Start with `guidedattn demo`."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    0; 1 where a check found faults; 2 for a mistake that the user can mend; 130 for Ctrl-C;
    141 where nobody reads the output any more.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())  # noqa: T201
        return 0 if words else 2
    if words[0] == "--version":
        print(f"guidedattn {importlib.import_module('guidedattn').__version__}")  # noqa: T201
        return 0
    if words[0] not in COMMANDS:
        return _fail(f"no command {words[0]!r}{near(words[0], COMMANDS)}; see guidedattn --help")
    sys.path.append(str(Path.cwd()))  # a class path may name a file of the user's, beside the config
    try:
        code: int | None = importlib.import_module(COMMANDS[words[0]][0]).run(words)
        sys.stdout.flush()
    except GuidedAttnError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads (`head`, a pager) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code or 0


def _fail(message: str) -> int:
    print(f"guidedattn: error: {message}", file=sys.stderr)  # noqa: T201
    return 2
