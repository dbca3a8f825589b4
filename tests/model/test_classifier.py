"""What the classifier does around its forward pass."""

import copy
import functools

import lightning.pytorch as pl
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn
from torch.utils.data import DataLoader

from guidedattn.errors import ConfigError, MaskError
from guidedattn.gates import FeatureGate, MultiplyGate, OutsideGate, ResidualGate
from guidedattn.heads import MLPHead
from guidedattn.losses import AttentionMining, MaskAlignment
from guidedattn.masks import BatchMask, MaskProvider, UNetMask
from tests.conftest import make_batch, tiny_classifier

BIG_STEPS = functools.partial(torch.optim.SGD, lr=0.5)


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


def test_a_frozen_backbone_stays_in_eval_mode_and_does_not_move():
    model = tiny_classifier(freeze_backbone=True, optimizer=BIG_STEPS).train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training
    trained = {id(p) for group in model.configure_optimizers().param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.head.parameters()}
    before = copy.deepcopy(model.state_dict())
    trainer(max_epochs=1).fit(model, loader(), loader())
    moved = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {"head.net.3.weight", "head.net.3.bias"}


@pytest.mark.parametrize("losses", [[], [MaskAlignment()], [AttentionMining()]])
def test_data_without_masks_trains_and_measures_what_it_can(losses):
    batch = make_batch(6, masks=False)
    items = [{key: value[i] for key, value in batch.items()} for i in range(6)]
    model = tiny_classifier(gate=MultiplyGate(), attention_losses=losses)
    trainer(max_epochs=1).fit(model, DataLoader(items, batch_size=3))
    (found,) = trainer().test(model, DataLoader(items, batch_size=3), verbose=False)
    assert "test/accuracy" in found
    assert "test/dead_maps" in found
    assert "test/energy_in_mask" not in found  # there is nothing to measure against


def test_a_mask_guides_only_the_images_that_have_one():
    """Through the multiplying gate an image without a mask scores as it does without any gate."""
    plain, gated = tiny_classifier().eval(), tiny_classifier(gate=MultiplyGate()).eval()
    batch = make_batch()
    expected, found = plain(batch["image"], batch), gated(batch["image"], batch)
    assert torch.equal(expected[3], found[3])
    assert not torch.isclose(expected[:3], found[:3]).all(1).any()


@pytest.mark.parametrize("multi_label", [False, True])
def test_logged_metrics_equal_scikit_learns_on_the_predictions(multi_label):
    torch.manual_seed(3)
    data = loader(24, multi_label=multi_label)
    model = tiny_classifier(norm="group", multi_label=multi_label, class_names=["a", "b", "c"])
    with torch.no_grad():  # the classes compete for the bright and the dark images
        for i, item in enumerate(data.dataset):
            item["image"] *= i / 24
        features = torch.cat([model.backbone(batch["image"]).mean((2, 3)) for batch in data])
        model.head.net[-1].weight.mul_(20)
        model.head.net[-1].bias.copy_(-(features @ model.head.net[-1].weight.T).mean(0))
    (found,) = trainer().test(model, data, verbose=False)
    outputs = trainer().predict(model, data)
    probabilities = torch.cat([part["probabilities"] for part in outputs]).double().numpy()
    labels = torch.cat([batch["label"] for batch in data]).int().numpy()
    predicted = probabilities > 0.5 if multi_label else probabilities.argmax(1)
    assert len(set(predicted.flatten().tolist())) > 1
    macro = f1_score(labels, predicted, average="macro", zero_division=0)
    single = f1_score(labels, predicted, average=None, zero_division=0)
    accuracy = (labels == predicted).mean()
    if not multi_label:
        probabilities /= probabilities.sum(1, keepdims=True)
    auroc = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    expected = {"accuracy": accuracy, "f1_macro": macro, "auroc": auroc}
    expected |= {f"f1_{name}": value for name, value in zip("abc", single, strict=True)}
    assert {f"test/{name}": pytest.approx(value, abs=1e-6) for name, value in expected.items()} == {
        name: found[name] for name in (f"test/{key}" for key in expected)
    }


def test_dead_maps_are_counted_and_left_out_of_the_energy():
    model = tiny_classifier(norm="group").eval()
    with torch.no_grad():
        model.head.net[-1].weight[0].zero_()  # class 0, the labels 0 and 3 of six, has no map
    (found,) = trainer().test(model, loader(), verbose=False)
    guidance = model.guide(make_batch(6))
    dead = guidance.attention.relu().amax((1, 2, 3)) < 1e-8
    assert bool(dead[0])
    assert found["test/dead_maps"] == pytest.approx(dead.float().mean().item())
    assert 0 < found["test/energy_in_mask"] < 1


class Data(pl.LightningDataModule):
    class_names = ("cat", "dog", "eel", "fox")

    def train_dataloader(self):
        return loader()


def test_another_number_of_classes_than_the_data_has_is_refused():
    with pytest.raises(ConfigError, match="num_classes is 3, but the data has 4 classes: cat, dog, eel, fox"):
        trainer(max_epochs=1).fit(tiny_classifier(), Data())


def test_the_criterion_and_the_weights_of_the_losses_add_up():
    losses = [AttentionMining(weight=0.5), MaskAlignment(weight=4.0), MaskAlignment(weight=8.0, relu=False)]
    model = tiny_classifier(norm="group", attention_losses=losses).train()
    guidance = model.guide(make_batch())
    found = model.losses(guidance)
    names = ["loss_attention_mining", "loss_mask_alignment", "loss_mask_alignment_2"]
    assert list(found) == ["loss", *names]
    plain = nn.functional.cross_entropy(guidance.logits, guidance.target)
    assert torch.allclose(found["loss"], plain + sum(found[name] for name in names))
    halved = copy.deepcopy(losses[1])
    halved.weight = 2.0
    assert torch.allclose(2 * halved(guidance), found["loss_mask_alignment"])


def test_what_is_measured_does_not_depend_on_the_batches():
    items = loader(7).dataset
    for item in items[2:5]:
        item["has_mask"] = torch.tensor(False)
    model = tiny_classifier(norm="group", attention_losses=[AttentionMining(), MaskAlignment()])
    with torch.no_grad():
        model.head.net[-1].weight[0].zero_()  # images 0, 3 and 6 have dead maps
    found = [
        trainer().test(model, DataLoader(items, batch_size=size), verbose=False)[0] for size in (1, 2, 3, 7)
    ]
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-6)


def test_a_batch_scheduler_steps_per_batch_and_others_per_epoch():
    one_cycle = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=4)
    halving = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    for scheduler, steps in ((one_cycle, 4), (halving, 2)):
        model = tiny_classifier(optimizer=BIG_STEPS, lr_scheduler=scheduler)
        run = trainer(max_epochs=2)
        run.fit(model, loader())  # 2 epochs of 2 batches
        assert run.lr_scheduler_configs[0].scheduler.last_epoch == steps


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
