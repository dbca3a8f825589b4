"""Recipes: what a component remembers of how it was built."""

import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from guidedattn.backbones import TimmBackbone
from guidedattn.component import Component, build, build_callable, default, describe
from guidedattn.errors import ConfigError
from guidedattn.gates import FeatureGate, MultiplyGate
from guidedattn.heads import Head, LinearHead, MLPHead
from guidedattn.losses import AttentionMining


class Many(Component):
    def __init__(self, first, *, second=2, **others):
        super().__init__()
        self.given = {"first": first, "second": second, **others}


def through_a_file(recipe, path):
    torch.save(recipe, path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"first": 1},
        {"first": [1.5, None, "x"], "second": True},
        {"first": {"a": {"b": 2}}, "third": "c"},
    ],
)
def test_every_kind_of_argument_comes_back_through_a_file(tmp_path, arguments):
    again = build(through_a_file(describe(Many(**arguments)), tmp_path / "recipe.pt"), Many)
    assert again.given == Many(**arguments).given


def test_positional_arguments_paths_tensors_and_components_come_back(tmp_path):
    thing = Many(MultiplyGate(0.25), second=Path("a/b"), third=torch.arange(3), fourth=[nn.ELU(alpha=0.5)])
    again = build(through_a_file(describe(thing), tmp_path / "recipe.pt"), Many).given
    assert isinstance(again["first"], MultiplyGate)
    assert again["first"].floor == 0.25
    assert again["second"] == "a/b"
    assert again["third"].tolist() == [0, 1, 2]
    assert again["fourth"][0].alpha == 0.5


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(3, affine=False),
        nn.LayerNorm([3, 2]),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]), label_smoothing=0.1),
        nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Dropout(0.3), nn.Linear(3, 1, bias=False))),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_torch_come_back_with_their_shapes(tmp_path, layer):
    again = build(through_a_file(describe(layer), tmp_path / "recipe.pt"), nn.Module)
    assert repr(again) == repr(layer)
    again.load_state_dict(layer.state_dict())
    if isinstance(layer, nn.CrossEntropyLoss):
        logits, target = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
        assert torch.equal(again(logits, target), layer(logits, target))


def test_a_partial_optimiser_comes_back_with_its_settings():
    recipe = describe(functools.partial(torch.optim.SGD, lr=0.5, momentum=0.9))
    group = build_callable(recipe, torch.optim.Optimizer)([nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert (group["lr"], group["momentum"]) == (0.5, 0.9)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"class_path": "guidedattn.heads.LinearHead"}, "does not build a FeatureGate"),
        ({"class_path": "guidedattn.gates.NoGate"}, r"cannot import 'guidedattn\.gates\.NoGate'"),
        ({"class_path": "nowhere.Gate"}, r"cannot import 'nowhere\.Gate'"),
        ({"class_path": "Gate"}, "cannot import 'Gate'"),
        ({"class_path": "guidedattn.gates.MultiplyGate", "init_args": {"flor": 1}}, "MultiplyGate: .*'flor'"),
        ("MultiplyGate", "expected a FeatureGate, got str 'MultiplyGate'"),
        (LinearHead(), "expected a FeatureGate, got LinearHead"),
        (MultiplyGate, "expected a FeatureGate, got"),
    ],
)
def test_what_is_no_recipe_of_the_family_is_refused_in_one_line(value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(value, FeatureGate)
    assert len(str(caught.value).splitlines()) == 1


def test_a_recipe_leaves_out_the_weights_that_the_checkpoint_holds(tmp_path):
    torch.save(TimmBackbone("test_resnet").net.state_dict(), tmp_path / "body.pth")
    recipe = describe(TimmBackbone("test_resnet", weights=tmp_path / "body.pth"))
    assert recipe["init_args"]["weights"] is None
    assert recipe["init_args"]["name"] == "test_resnet"


def test_a_default_recipe_makes_a_new_object_each_time():
    recipe = default(MLPHead)
    assert build(recipe, Head) is not build(recipe, Head)


def test_attention_losses_name_themselves_in_the_log():
    assert AttentionMining().name == "attention_mining"


def test_a_head_with_too_few_dropouts_is_refused():
    with pytest.raises(ConfigError, match="2 hidden layers and 1 dropouts"):
        MLPHead(hidden=[8, 4], dropout=[0.1])
