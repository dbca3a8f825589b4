"""Judge the U-Net that finds lungs on films it has not seen, and draw what it found.

Prints the mean Dice per maker of the masks, beside a baseline that gives every film the mean training mask,
and draws the outlines on COVID-19 films (Fig. 2 of the paper).

    python examples/judge_lungs.py lungs.csv UNET.ckpt sheet.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_f1_score

from guidedattn.data import MaskedImageDataModule
from guidedattn.figures import save_sheet
from guidedattn.masks import UNetMask


def mean_mask(data: MaskedImageDataModule) -> Tensor:
    """Where more than half of the training films have lung, `[1, H, W]`."""
    masks = torch.cat([batch["mask"] for batch in data.train_dataloader()])
    return (masks.mean(0) > 0.5).float()


def main() -> None:
    """Print the table and draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path, help="from examples/lung_masks.py")
    parser.add_argument("weights", type=Path, help="checkpoint of MaskSegmenter")
    parser.add_argument("sheet", type=Path, help="the PNG to draw")
    options = parser.parse_args()
    unet = UNetMask(options.weights)
    data = MaskedImageDataModule(options.manifest, image_size=unet.image_size, require_mask=True)
    data.setup("fit")
    data.setup("test")
    baseline = mean_mask(data)
    rows, films = [], []
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        for batch in loader:
            found, _ = unet(batch["image"], {})
            truth = (batch["mask"] > 0.5).int()
            dice = {"unet": found, "mean mask": baseline.expand_as(found)}
            values = {
                name: binary_f1_score(mask, truth, multidim_average="samplewise")
                for name, mask in dice.items()
            }
            for i, label in enumerate(batch["label"].tolist()):
                each = {name: float(value[i]) for name, value in values.items()}
                rows.append({"split": split, "maker": data.class_names[label], **each})
                films.append((batch["image"][i], found[i], f"{each['unet']:.2f}"))
    table = pd.DataFrame(rows)
    groups = table.groupby(["maker", "split"])
    print(groups[["unet", "mean mask"]].mean().join(groups.size().rename("films")).round(3).to_string())
    chosen = films[:: max(1, len(films) // 15)][:15]
    save_sheet(
        options.sheet,
        [[(image, None, mask) for image, mask, _ in chosen[i : i + 5]] for i in range(0, 15, 5)],
        [""] * 5,
        [""] * 3,
        [[f"Dice {dice}" for *_, dice in chosen[i : i + 5]] for i in range(0, 15, 5)],
        "Lungs found on films of patients that the U-Net has not seen",
    )


if __name__ == "__main__":
    main()
