"""`guidedattn data table`: the paper's Table 1 for what is on disk."""

from __future__ import annotations

from collections.abc import Sequence

from guidedattn.data.report import Report
from guidedattn.data_cli.console import Format, as_csv, as_json, as_markdown, say, show
from guidedattn.data_cli.options import collection, parser
from guidedattn.errors import DataError

NOTE = "rows: in the metadata, images: distinct files, present: on disk and used"


def run(words: Sequence[str]) -> None:
    """Print rows, images and files on disk per source and class, and why the others were left out."""
    options = parser("table", __doc__)
    options.add_argument("--format", type=Format, default="table", help="for people, or csv, json or md")
    options.add_argument("--names", type=bool, default=False, help="with json: the files behind each count")
    chosen = options.parse_args(list(words[1:]))
    report = Report()
    images = collection(chosen.root, chosen.labels, chosen.exclude)
    try:
        report.keep(images.records(report))
    except DataError:
        if not report.rows:
            raise
    classes = images.label_map.class_names if images.label_map else ()
    table, reasons = report.table(classes), report.reasons()
    notes = [f"{text} ({len(names)})" if names else text for text, names in report.notes.items()]
    if chosen.format == "csv":
        say(as_csv([*table, *reasons]))
    elif chosen.format == "json":
        names = {"report": report.as_dict()} if chosen.names else {}
        say(as_json({"table": table, "dropped": reasons, "notes": notes, **names}))
    elif chosen.format == "md":
        parts = [as_markdown(table), NOTE, as_markdown(reasons), "\n".join(f"- {note}" for note in notes)]
        say("\n\n".join(part for part in parts if part))
    else:
        show(table, NOTE)
        if reasons:
            show(reasons, "left out")
        for note in notes:
            say(f"note: {note}")
