"""Accuracy per source and class, from predictions and the manifest of a run; several runs side by side.

python examples/by_source.py RUN/manifest.csv plain=plain.csv guided=guided.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd


def read(manifest: Path, predictions: Path) -> pd.DataFrame:
    """The test films with what was predicted for them."""
    films = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    found = pd.read_csv(predictions, dtype={"path": str})
    return found.merge(films[["path", "label", "source"]], on="path", validate="one_to_one")


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path, help="manifest.csv beside a run's logs")
    parser.add_argument("predictions", nargs="+", help="name=predictions.csv")
    options = parser.parse_args()
    columns: dict[str, pd.Series] = {}
    for word in options.predictions:
        name, _, path = word.partition("=")
        films = read(options.manifest, Path(path))
        right = (films["predicted"] == films["label"]).groupby([films["source"], films["label"]])
        columns.setdefault("films", right.size())
        columns[name] = right.sum()
    table = pd.DataFrame(columns).astype(int)
    table.loc[("all", "all"), :] = table.sum()
    print("| source | class | " + " | ".join(table.columns) + " |")
    print("|---" * (2 + table.shape[1]) + "|")
    for row in table.astype(int).reset_index().to_numpy().tolist():
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
