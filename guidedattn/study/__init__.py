"""`guidedattn study`: the paper's three stages, from images to tables, figures and a report."""

from guidedattn.study.command import run

__all__ = ["run"]
