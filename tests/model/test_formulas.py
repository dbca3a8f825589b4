"""Every loss and explainer against its formula: loops over images, labels and cells, and no autograd.

Derivatives are differences of logits. The gate lets a part of the outside pass, the last image has no mask,
and with several labels one image has none of them.
"""

from __future__ import annotations

import math

import pytest
import torch

from guidedattn.explainers import GradientRollout, InputGradient
from guidedattn.gates import MultiplyGate
from guidedattn.heads import MLPHead
from tests.conftest import make_batch, tiny_classifier
from tests.model.test_explainers import EXPLAINERS
from tests.model.test_losses import LOSSES

SIDE, CELLS, CHANNELS, STEP = 16, 4, 6, 1e-5
FLOOR = 0.2
SEVERAL = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]])


def make(multi_label, **arguments):
    """A network of doubles whose answers are not all near a third, and five images."""
    model = tiny_classifier(
        "group", gate=MultiplyGate(FLOOR), head=MLPHead([5], [0.0]), multi_label=multi_label, **arguments
    )
    with torch.no_grad():
        model.head.net[-1].weight.mul_(10)
    batch = make_batch(size=5)
    batch["image"], batch["mask"] = batch["image"].double(), batch["mask"].double()
    if multi_label:
        batch["label"] = SEVERAL
    return model.double().eval(), batch  # the outside comes from the image before, not from a random one


def labels_of(batch, i):
    label = batch["label"][i]
    return [int(label)] if label.ndim == 0 else [c for c in range(3) if label[c]]


def grid(function, side=CELLS):
    return [[function(r, c) for c in range(side)] for r in range(side)]


def flat(rows):
    return [value for row in rows for value in row]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


class Case:
    """One image of a batch, looked at for one class."""

    def __init__(self, model, batch, i, label):
        self.model, self.label, self.target = model, label, batch["label"][i]
        self.image, self.stranger = batch["image"][i, 0].tolist(), batch["image"][i - 1, 0].tolist()
        self.mask = batch["mask"][i, 0].tolist()
        self.shares = grid(
            lambda r, c: mean(self.mask[4 * r + y][4 * c + x] for y in range(4) for x in range(4))
        )
        self.opening = grid(
            lambda r, c: FLOOR + (1 - FLOOR) * self.shares[r][c] if batch["has_mask"][i] else 1.0
        )
        with torch.no_grad():
            self.features = model.backbone(batch["image"][i : i + 1])[0].tolist()

    def head(self, features):
        """Logits of a list of feature maps."""
        with torch.no_grad():
            return self.model.head(doubles(features) * doubles(self.opening)).tolist()

    def network(self, images):
        """Logits of a list of images, behind this image's gate."""
        with torch.no_grad():
            return self.head(self.model.backbone(doubles(images)[:, None]).tolist())

    def probabilities(self, logits):
        if self.target.ndim:
            return [1 / (1 + math.exp(-s)) for s in logits]
        return [math.exp(s) / sum(math.exp(t) for t in logits) for s in logits]

    def slopes(self):
        """Derivative of the class's logit by every feature, `[k][r][c]`."""
        places = [(k, r, c) for k in range(CHANNELS) for r in range(CELLS) for c in range(CELLS)]
        slopes = iter(differences(self.head, self.features, places, lambda logits: logits[self.label]))
        return [grid(lambda r, c: next(slopes)) for _ in range(CHANNELS)]

    def pixel_slopes(self, score):
        """Derivative of score(logits) by every pixel, `[r][c]`."""
        places = [(r, c) for r in range(SIDE) for c in range(SIDE)]
        slopes = iter(differences(self.network, self.image, places, score))
        return grid(lambda r, c: next(slopes), SIDE)

    def weighted(self, weight):
        """Sum over k of weight(k, r, c) f."""
        return grid(lambda r, c: sum(weight(k, r, c) * self.features[k][r][c] for k in range(CHANNELS)))

    def normalised(self):
        """The rectified Grad-CAM map in [0, 1]; None if dead."""
        positive = [[max(a, 0.0) for a in row] for row in MAPS["GradCAM"](self)]
        return between_0_and_1(positive)

    def foreign(self):
        """Logits with the outside of the image before."""
        m = self.mask
        mixed = grid(lambda r, c: self.image[r][c] * m[r][c] + self.stranger[r][c] * (1 - m[r][c]), SIDE)
        return self.network([mixed])[0]


def doubles(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def differences(network, point, places, score):
    """Central differences of score(logits) at places of nested lists: a number, or a row of them."""
    moved = []
    for place in places:
        for step in (STEP, -STEP):
            there = doubles(point)
            there[place] += step
            moved.append(there.tolist())
    scores = [score(logits) for logits in network(moved)]
    return [(up - down) / (2 * STEP) for up, down in zip(scores[::2], scores[1::2], strict=True)]


def between_0_and_1(rows):
    low, high = min(flat(rows)), max(flat(rows))
    return [[(a - low) / (high - low) for a in row] for row in rows] if high > low else None


def enlarged(rows):
    """Bilinear, pixel centres at halves."""

    def at(r, c):
        y, x = (min(max((p + 0.5) * CELLS / SIDE - 0.5, 0), CELLS - 1) for p in (r, c))
        top, left = min(int(y), CELLS - 2), min(int(x), CELLS - 2)
        dy, dx = y - top, x - left
        above = (1 - dx) * rows[top][left] + dx * rows[top][left + 1]
        below = (1 - dx) * rows[top + 1][left] + dx * rows[top + 1][left + 1]
        return (1 - dy) * above + dy * below

    return grid(at, SIDE)


# Explainers ---------------------------------------------------------------------------------------------


def grad_cam(case):
    g = case.slopes()
    return case.weighted(lambda k, r, c: mean(flat(g[k])))


def class_activation(case):
    """The weight of a channel is what the logit gains when all of the channel rises."""
    channels = [(k,) for k in range(CHANNELS)]
    weights = differences(case.head, case.features, channels, lambda logits: logits[case.label])
    return case.weighted(lambda k, r, c: weights[k])


def grad_cam_plus_plus(case):
    g = case.slopes()

    def weight(k):
        total = sum(flat(case.features[k]))
        return sum(
            d**2 / (2 * d**2 + d**3 * total + 1e-6) * max(d, 0) for d in flat(g[k])
        )  # as pytorch-grad-cam

    weights = [weight(k) for k in range(CHANNELS)]
    return case.weighted(lambda k, r, c: weights[k])


def hires_cam(case):
    g = case.slopes()
    return case.weighted(lambda k, r, c: g[k][r][c])


def layer_cam(case):
    g = case.slopes()
    return case.weighted(lambda k, r, c: max(g[k][r][c], 0))


def input_gradient(case):
    return case.pixel_slopes(lambda logits: logits[case.label])


MAPS = {
    "GradCAM": grad_cam,
    "CAM": class_activation,
    "GradCAMPlusPlus": grad_cam_plus_plus,
    "HiResCAM": hires_cam,
    "LayerCAM": layer_cam,
    "InputGradient": input_gradient,
}


def test_no_loss_and_no_explainer_is_without_its_formula():
    assert set(LITERAL) == {kind.__name__ for kind in LOSSES}
    rollout = GradientRollout.__name__  # its own, in test_explainers, follows a transformer
    assert {*MAPS, rollout} == {kind.__name__ for kind in EXPLAINERS}


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_the_map_is_the_formula_taken_literally(name, multi_label):
    (kind,) = (kind for kind in EXPLAINERS if kind.__name__ == name)
    model, batch = make(multi_label, explainer=kind())
    seen = []
    for view in model.guide(batch).views():
        for i in view.valid.nonzero().flatten().tolist():
            label = int(view.class_index[i])
            seen.append((i, label))
            expected = doubles(MAPS[name](Case(model, batch, i, label)))
            found = view.attention[i, 0].detach()
            assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max())), seen[-1]
    assert sorted(seen) == [(i, label) for i in range(5) for label in labels_of(batch, i)]


@pytest.mark.parametrize("name", [name for name in MAPS if name != "InputGradient"])
def test_relu_keeps_what_speaks_for_the_class(name):
    (kind,) = (kind for kind in EXPLAINERS if kind.__name__ == name)
    model, batch = make(False, explainer=kind())
    signed = model.guide(batch).attention
    model.explainer.relu = True
    assert torch.equal(model.guide(batch).attention, signed.clamp_min(0))


def test_input_gradient_times_input():
    model, batch = make(False, explainer=InputGradient())
    plain = model.guide(batch).attention
    model.explainer = InputGradient(times_input=True)
    assert torch.allclose(model.guide(batch).attention, plain * batch["image"])


# Losses -------------------------------------------------------------------------------------------------


def soft_log(a):
    return math.log(0.01 + 0.98 * a)


def over_cells(distance):
    """Mean of distance(A, m) over the cells; None for a dead map."""

    def value(case):
        attention = case.normalised()
        return attention and mean(map(distance, flat(attention), flat(case.shares)))

    return value


def inside_bce(case):
    attention = case.normalised()
    if attention is None:
        return None
    pairs = list(zip(flat(attention), flat(case.shares), strict=True))
    return sum(-m * soft_log(a) for a, m in pairs) / sum(m for _, m in pairs)


def energy_outside(case):
    cells = [abs(a) for a in flat(MAPS["GradCAM"](case))]
    return sum(a * (1 - m) for a, m in zip(cells, flat(case.shares), strict=True)) / sum(cells)


def outside_penalty(case):
    energy = flat(grid(lambda r, c: sum(case.features[k][r][c] ** 2 for k in range(CHANNELS))))
    return sum(e * (1 - m) for e, m in zip(energy, flat(case.shares), strict=True)) / sum(energy)


def attention_mining(case):
    attention = between_0_and_1(enlarged([[max(a, 0.0) for a in row] for row in MAPS["GradCAM"](case)]))
    if attention is None:
        return None
    kept = grid(lambda r, c: case.image[r][c] * (1 - 1 / (1 + math.exp(-10 * (attention[r][c] - 0.5)))), SIDE)
    return case.probabilities(case.network([kept])[0])[case.label]


def background_consistency(case):
    p, q = (case.probabilities(logits) for logits in (case.network([case.image])[0], case.foreign()))
    ratios = [(a, b) for a, b in zip(p, q, strict=True)]
    if case.target.ndim:
        ratios += [(1 - a, 1 - b) for a, b in ratios]
    return sum(a * math.log(a / b) for a, b in ratios) / (3 if case.target.ndim else 1)


def foreground_only(case):
    q = case.probabilities(case.foreign())
    if case.target.ndim:
        return mean(-math.log(a if wanted else 1 - a) for a, wanted in zip(q, case.target, strict=True))
    return -math.log(q[int(case.target)])


def input_gradient_penalty(case):
    def surprise(logits):
        p = case.probabilities(logits)
        return sum(math.log(a) + (math.log(1 - a) if case.target.ndim else 0) for a in p)

    slopes = flat(case.pixel_slopes(surprise))
    return sum(((1 - m) * slope) ** 2 for m, slope in zip(flat(case.mask), slopes, strict=True))


LITERAL = {
    "MaskAlignment": over_cells(lambda a, m: (a - m) ** 2),
    "L1Alignment": over_cells(lambda a, m: abs(a - m)),
    "BCEAlignment": over_cells(lambda a, m: -(m * soft_log(a) + (1 - m) * soft_log(1 - a))),
    "InsideBCE": inside_bce,
    "EnergyOutside": energy_outside,
    "OutsidePenalty": outside_penalty,
    "AttentionMining": attention_mining,
    "BackgroundConsistency": background_consistency,
    "ForegroundOnly": foreground_only,
    "InputGradientPenalty": input_gradient_penalty,
}


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
def test_the_loss_is_the_formula_taken_literally(kind, multi_label):
    """Mean over an image's labels, then over the images that have a mask (if it is read) and a living map."""
    model, batch = make(multi_label, attention_losses=[kind(weight=2.0)])
    loss = model.attention_losses[0]
    guidance = model.guide(batch)
    values, counted = loss.per_sample(guidance)
    expected = []
    for i in range(5):
        labels = labels_of(batch, i) if loss.per_class else [0]
        found = [LITERAL[kind.__name__](Case(model, batch, i, label)) for label in labels]
        living = [value for value in found if value is not None]
        expected.append(mean(living) if living and (batch["has_mask"][i] or not loss.needs_mask) else None)
    assert counted.tolist() == [value is not None for value in expected]
    assert int(counted.sum()) >= 3
    assert values.tolist() == pytest.approx([2 * (value or 0) for value in expected], rel=1e-4, abs=1e-8)
    whole = mean(value for value in expected if value is not None)
    assert float(loss(guidance).detach()) == pytest.approx(2 * whole, rel=1e-4)
