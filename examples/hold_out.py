"""Keep whole sources out of a manifest, to judge them apart: a shift of source that nobody planted.

Writes two manifests: the other sources with the splits that they have, and the sources held out, all of them
test images. A held-out film of which the others hold a copy is left out and counted.

    guidedattn data build --root ROOT --duplicates pairs.csv --output all.csv
    python examples/hold_out.py all.csv ACCXRD FCCXRD --films films.csv --elsewhere elsewhere.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from guidedattn.data import Manifest


def main() -> None:
    """Write both manifests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path, help="of all sources, with splits")
    parser.add_argument("sources", nargs="+", help="to hold out")
    parser.add_argument("--films", type=Path, required=True, help="the CSV of the others, in the same folder")
    parser.add_argument("--elsewhere", type=Path, required=True, help="the CSV of those held out, likewise")
    options = parser.parse_args()
    table = Manifest.read(options.manifest).table
    if unknown := sorted(set(options.sources) - set(table["source"])):
        raise SystemExit(f"{options.manifest} holds no image of {', '.join(unknown)}")
    out = table["source"].isin(options.sources)
    shared = (table["group"] != "") & table["group"].isin(table.loc[~out, "group"])
    elsewhere = table[out & ~shared].assign(split="test")
    Manifest(table[~out], options.films.parent).write(options.films)
    Manifest(elsewhere, options.elsewhere.parent).write(options.elsewhere)
    print(f"{(~out).sum()} films, {len(elsewhere)} elsewhere; {(out & shared).sum()} copies left out")


if __name__ == "__main__":
    main()
