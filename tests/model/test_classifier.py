"""What the classifier does around its forward pass."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from guidedattn.errors import DataError, MaskError
from guidedattn.gates import FeatureGate, MultiplyGate, OutsideGate, ResidualGate
from guidedattn.heads import MLPHead
from guidedattn.losses import AttentionMining, MaskAlignment
from guidedattn.masks import BatchMask, MaskProvider, UNetMask
from tests.conftest import make_batch, tiny_classifier


def trainer(**kwargs):
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **kwargs,
    )  # fmt: skip


def loader(samples=6, multi_label=False):
    batch = make_batch(samples)
    if multi_label:
        batch["label"] = (torch.rand(samples, 3) > 0.5).float()
    items = [{key: value[i] for key, value in batch.items()} for i in range(samples)]
    return DataLoader(items, batch_size=3)


def test_the_mask_network_stays_frozen_in_eval_and_unmoved():
    provider = UNetMask(encoder="mobilenet_v2", image_size=32)
    model = tiny_classifier(mask_provider=provider, gate=MultiplyGate(), attention_losses=[MaskAlignment()])
    before = {name: value.clone() for name, value in provider.state_dict().items()}
    model.train()
    assert not any(module.training for module in provider.modules())
    trained = {id(p) for group in model.configure_optimizers().param_groups for p in group["params"]}
    assert trained
    assert not trained & {id(p) for p in provider.parameters()}
    trainer(max_epochs=1).fit(model, loader())
    assert all(torch.equal(before[name], value) for name, value in provider.state_dict().items())


def test_the_papers_regularisation_in_closed_form():
    """L2 with 0.001 on the kernels: w - lr (g + 0.002 w); biases without."""
    model = tiny_classifier(norm="group").train()
    optimizer = model.configure_optimizers()
    model.losses(model.guide(make_batch()))["loss"].backward()
    layer = model.head.net[-1]
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer.step()
    assert torch.allclose(layer.weight, weight - 1e-4 * (layer.weight.grad + 0.002 * weight), atol=1e-9)
    assert torch.allclose(layer.bias, bias - 1e-4 * layer.bias.grad, atol=1e-9)


def test_a_frozen_backbone_stays_in_eval_mode():
    model = tiny_classifier(freeze_backbone=True).train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_logged_names_and_the_accuracy_by_hand(multi_label):
    losses = [AttentionMining(), MaskAlignment()]
    model = tiny_classifier(multi_label=multi_label, attention_losses=losses, class_names=["a", "b", "c"])
    data = loader(multi_label=multi_label)
    trainer(max_epochs=1).fit(model, data)
    (found,) = trainer().test(model, data, verbose=False)
    names = ["loss", "accuracy", "f1_macro", "f1_a", "f1_b", "f1_c", "auroc", "energy_in_mask", "dead_maps"]
    names += ["loss_attention_mining", "loss_mask_alignment"]
    assert set(found) == {f"test/{name}" for name in names}
    right = []
    for batch in data:
        with torch.no_grad():
            logits = model.eval()(batch["image"])
        right.append(
            (logits > 0) == batch["label"].bool() if multi_label else logits.argmax(1) == batch["label"]
        )
    assert found["test/accuracy"] == pytest.approx(float(torch.cat(right).float().mean()))


def test_energy_in_mask_by_hand():
    model = tiny_classifier().eval()
    (found,) = trainer().test(model, loader(), verbose=False)
    energies = []
    for batch in loader():
        guidance = model.guide(batch)
        maps = nn.functional.interpolate(guidance.attention.relu(), size=(16, 16), mode="bilinear")
        for i in range(len(maps)):
            if bool(batch["has_mask"][i]) and bool(maps[i].any()):
                energies.append(float((maps[i] * batch["mask"][i]).sum() / maps[i].sum()))
    assert found["test/energy_in_mask"] == pytest.approx(sum(energies) / len(energies), abs=1e-6)


def test_nan_stops_with_the_path():
    batch = make_batch()
    batch["image"][2, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match=r"1 images are not finite .*: image-2"):
        tiny_classifier(norm="group").guide(batch)


class Wrong(MaskProvider):
    def __init__(self, value=2.0, side=16):
        super().__init__()
        self.value, self.side = value, side

    def provide(self, images, batch):
        return torch.full((len(images), 1, self.side, self.side), self.value)


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        (Wrong(), "Wrong gave a mask with values from 2 to 2 for image-0"),
        (Wrong(value=float("nan")), "Wrong gave a mask with values from nan to nan for image-0"),
        (Wrong(value=1.0, side=8), r"Wrong gave masks of shape \[4, 1, 8, 8\]"),
    ],
)
def test_a_bad_mask_names_provider_and_sample(provider, message):
    with pytest.raises(MaskError, match=message):
        tiny_classifier(mask_provider=provider).guide(make_batch())


def test_an_empty_mask_is_no_mask():
    batch = make_batch()
    batch["mask"][0] = 0
    _, has_mask = BatchMask()(batch["image"], batch)
    assert has_mask.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (MultiplyGate(), [[0.0, 0.5], [1.0, 1.0]]),
        (MultiplyGate(floor=0.2), [[0.2, 0.6], [1.0, 1.0]]),
        (ResidualGate(), [[1.0, 1.5], [2.0, 2.0]]),
        (OutsideGate(), [[1.0, 0.5], [0.0, 0.0]]),
    ],
)
def test_gates_by_hand(gate: FeatureGate, expected):
    mask = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]])[None, None].repeat(
        2, 1, 1, 1
    )
    features = torch.ones(2, 3, 2, 2)
    gated = gate(features, mask, torch.tensor([True, False]))
    assert torch.allclose(gated[0], torch.tensor(expected).expand(3, 2, 2))
    assert torch.equal(gated[1], features[1])  # a sample without a mask passes unchanged


def test_the_head_is_the_papers():
    head = MLPHead()
    head.attach(1280, 3)
    linear = [(m.in_features, m.out_features) for m in head.modules() if isinstance(m, nn.Linear)]
    assert linear == [(1280, 128), (128, 64), (64, 3)]
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.10, 0.05]
    assert sum(isinstance(m, nn.ELU) for m in head.modules()) == 2
