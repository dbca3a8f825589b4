"""Draw films, the mask and the attention map of each of several trained classifiers, side by side.

Usage:
    python examples/overlay_sheet.py sheet.png --films A.png B.png --models plain=P.ckpt guided=G.ckpt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from guidedattn import GuidedClassifier
from guidedattn.data import read_image
from guidedattn.data.images import squash
from guidedattn.figures import save_sheet


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sheet", type=Path, help="the PNG to draw")
    parser.add_argument("--films", type=Path, nargs="+", required=True)
    parser.add_argument("--models", nargs="+", required=True, help="name=checkpoint")
    parser.add_argument("--image_size", type=int, default=160, help="side that the models were trained on")
    options = parser.parse_args()
    images = torch.stack([squash(read_image(path), options.image_size) for path in options.films])
    rows = [[(image, None, None)] for image in images]
    captions = [[path.stem] for path in options.films]
    names = [word.partition("=")[0] for word in options.models]
    for word in options.models:
        model = GuidedClassifier.load_from_checkpoint(word.partition("=")[2]).eval()
        with torch.no_grad():
            guidance = model.guide({"image": images})
        best = guidance.probabilities.max(1)
        for i, row in enumerate(rows):
            row.append((images[i], guidance.attention[i], guidance.mask[i]))  # type: ignore[arg-type]
            captions[i].append(f"{model.class_names[int(best.indices[i])]} {float(best.values[i]):.2f}")
    save_sheet(options.sheet, rows, ["film", *names], [""] * len(rows), captions)


if __name__ == "__main__":
    main()
