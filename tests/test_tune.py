"""`guidedattn tune`: what is searched, what is kept, what is refused."""

import json
import re

import pandas as pd
import pytest
import yaml

from guidedattn.cli import main

pytest.importorskip("optuna")

CONFIG = """
data:
  class_path: PhantomDataModule
  init_args: {train_size: 18, val_size: 9, test_size: 9, image_size: 32}
model:
  backbone: {class_path: TimmBackbone, init_args: {name: test_resnet}}
  head: {class_path: LinearHead}
  attention_losses: [{class_path: MaskAlignment, init_args: {weight: 1.0}}]
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
search:
  model.optimizer.init_args.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
  model.attention_losses.0.init_args.weight: {choices: [0.5, 5.0]}
  data.init_args.batch_size: {low: 6, high: 9}
sampler: {class_path: optuna.samplers.RandomSampler, init_args: {seed: 1}}
pruner: {class_path: optuna.pruners.NopPruner}
epochs: 1
"""


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune.yaml").write_text(CONFIG)
    return ["tune", "--config", "tune.yaml", "--output", "out"]


@pytest.mark.slow
def test_trials_add_up_over_calls_and_the_best_can_be_trained(words, tmp_path, capsys):
    assert main([*words, "--trials", "2"]) == 0
    first = pd.read_csv(tmp_path / "out/trials.csv")
    assert main([*words, "--trials", "3"]) == 0
    trials = pd.read_csv(tmp_path / "out/trials.csv")
    assert len(trials) == 3
    pd.testing.assert_frame_equal(trials[:2], first)
    rates = trials["params_model.optimizer.init_args.lr"]
    assert rates.between(1e-4, 1e-2).all()
    assert set(trials["params_data.init_args.batch_size"]) <= {6, 7, 8, 9}
    best = json.loads((tmp_path / "out/best.json").read_text())
    assert best["value"] == trials["value"].max()
    config = yaml.safe_load((tmp_path / "out/best.yaml").read_text())
    assert config["model"]["optimizer"]["init_args"]["lr"] == best["model.optimizer.init_args.lr"]
    assert main(["fit", "--config", "out/best.yaml", "--trainer.max_epochs", "1"]) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("search: {model.optimizer.init_arg.lr: {low: 1, high: 2}}", "no model.optimizer.init_arg.lr"),
        ("search: {data.init_args.batch_size: {lo: 1, high: 2}}", "data.init_args.batch_size needs choices"),
        ("search: {data.init_args.batch_size: {low: 9, high: 2}}", "search: data.init_args.batch_size: "),
        ("model: {gat: {class_path: OpenGate}}", "gat"),
    ],
)
def test_a_wrong_search_is_refused_in_a_line(words, tmp_path, capsys, wrong, message):
    (tmp_path / "wrong.yaml").write_text(wrong)
    try:
        code = main([*words[:3], "--config", "wrong.yaml", "--output", "out"])
    except SystemExit as refused:
        code = refused.code
    assert code == 2
    assert re.search(message, capsys.readouterr().err)
