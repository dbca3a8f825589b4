"""What each instrument proves and what it does not, in a line each, for those who read the numbers."""

MEANING = {
    "energy_in_mask": "share of the map inside the mask. Shows where the map lies; the prediction may still "
    "follow what is outside.",
    "pointing_game": "share of maps whose highest point is inside the mask. Shows one point of each map; "
    "proves nothing about the rest, or the prediction.",
    "attention_iou": "overlap of map and mask. High only if the map fills the mask; a small lesion that is "
    "rightly seen scores low.",
    "dead_maps": "share of maps that show nothing. The other numbers on maps are about the living ones only.",
    "accuracy_outside_swapped": "accuracy with the outside taken from an image of another class. Near "
    "`accuracy`: the answer does not follow the outside. Lower: it does, or the seam confuses it.",
    "accuracy_outside_blurred": "accuracy with the outside blurred. A drop shows reliance on fine detail out "
    "there; none does not exclude brightness and coarse shape.",
    "accuracy_outside_removed": "accuracy with the outside grey. A drop shows reliance on the outside or "
    "alarm at the unusual picture; none does not exclude a marker that helps when present.",
    "reliance_outside": "how far the answer moves when the outside is swapped, in units of its usual spread. "
    "0 is none; from about 0.15 on the outside speaks along.",
}
