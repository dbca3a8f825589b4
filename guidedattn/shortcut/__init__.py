"""`guidedattn shortcut`: which guidance survives a marker that betrays the class?"""

from guidedattn.shortcut.command import run

__all__ = ["run"]
