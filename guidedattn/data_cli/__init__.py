"""`guidedattn data <command>`: what lies on disk, what goes where, and what is wrong with it.

One file per command, each with `run(words)`; nothing heavy is imported before the command is known.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from guidedattn.errors import ConfigError, near

COMMANDS: dict[str, tuple[str, str]] = {
    "table": ("guidedattn.data_cli.table", "count rows, images and files per source and class"),
    "build": ("guidedattn.data_cli.build", "write a manifest with patients and copies whole in one split"),
    "verify": ("guidedattn.data_cli.verify", "decode every image and mask, and list each bad row"),
    "duplicates": ("guidedattn.data_cli.duplicates", "find the images that show one film"),
    "masks": ("guidedattn.data_cli.masks", "write the masks of a provider, and a manifest with them"),
    "sheet": ("guidedattn.data_cli.sheet", "draw films of a manifest with the outlines of their masks"),
}


def usage() -> str:
    """The text of `guidedattn data --help`."""
    commands = "\n".join(f"  {name:12}{text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: guidedattn data <command> [options]\n\n"
        f"commands:\n{commands}\n\n"
        "`guidedattn data <command> --help` lists the options of a command."
    )


def run(words: Sequence[str]) -> int | None:
    """Run `data <command> ...`; what the command returns is the exit code, None being 0.

    Raises:
        ConfigError: there is no such command.
    """
    if len(words) < 2 or words[1] in ("-h", "--help"):
        print(usage())  # noqa: T201
        return 0 if len(words) > 1 else 2
    if words[1] not in COMMANDS:
        raise ConfigError(
            f"no command data {words[1]!r}{near(words[1], COMMANDS)}; see guidedattn data --help"
        )
    code: int | None = importlib.import_module(COMMANDS[words[1]][0]).run(words[1:])
    return code
