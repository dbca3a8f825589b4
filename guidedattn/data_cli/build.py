"""`guidedattn data build`: one manifest, patients and copies whole on one side."""

from __future__ import annotations

from collections.abc import Sequence

from guidedattn.data import Manifest, build_manifest
from guidedattn.data.report import Report
from guidedattn.data_cli.console import progress, say, show
from guidedattn.data_cli.options import collection, parser


def run(words: Sequence[str]) -> None:
    """Write the manifest and print the paper's Table 3: images per split, source and class."""
    options = parser("build", __doc__)
    options.add_argument(
        "--output", type=str, required=True, help="the CSV to write; paths are relative to it"
    )
    options.add_argument(
        "--split", default="patient", help="patient (whole patients), or paper (single images; leaks)"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folds", type=int, default=0, help="cross-validation folds, one manifest for each")
    options.add_argument(
        "--duplicates", type=str | None, help="CSV of pairs that show one film: path_a, path_b"
    )
    options.add_argument("--digests", type=bool, default=True, help="read each file for its SHA-256")
    chosen = options.parse_args(list(words[1:]))
    report = Report()
    written = build_manifest(
        collection(chosen.root, chosen.labels, chosen.exclude),
        chosen.output,
        chosen.split,
        chosen.seed,
        chosen.folds,
        chosen.duplicates,
        chosen.digests,
        report,
        lambda items, total: progress(items, total, "hashing"),
    )
    say(str(report))
    for path in written:
        manifest = Manifest.read(path)
        show(manifest.counts().to_dict("records"), f"{path}: {len(manifest):,} images")
