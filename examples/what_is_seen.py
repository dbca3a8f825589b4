"""What a classifier sees of generated films under each gate on the images (the picture of docs/guidance.md).

python examples/what_is_seen.py seen.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from guidedattn import PhantomDataModule
from guidedattn.backgrounds import ForeignBackground
from guidedattn.figures import save_sheet
from guidedattn.gates import BackgroundGate, ContinueGate, MultiplyGate


def main(path: Path) -> None:
    """Write the sheet, one film per row."""
    torch.manual_seed(4)
    data = PhantomDataModule(image_size=192, train_size=6, batch_size=6, marker="matched")
    data.setup("fit")
    films = [data.make_dataset("train")[i] for i in range(6)]
    images = torch.stack([film["image"] for film in films])
    masks = torch.stack([film["mask"] for film in films])
    foreign = BackgroundGate(ForeignBackground())
    gates = [MultiplyGate(), foreign, BackgroundGate(), ContinueGate().eval(), ContinueGate()]
    columns = [images, *(gate(images, masks) for gate in gates)]
    headings = [
        "film",
        "MultiplyGate",
        "foreign outside",
        "fitted outside",
        "ContinueGate",
        "the same, training",
    ]
    rows = [[(column[i], None, masks[i] if column is images else None) for column in columns] for i in (0, 1)]
    save_sheet(path, rows, headings, ["", ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
