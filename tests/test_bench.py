"""`guidedattn bench` runs; how long the steps take is the machine's affair."""

import re

import pytest
import torch

from guidedattn.cli import main


def test_bench_prints_the_ratio_of_every_step(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    threads = torch.get_num_threads()
    words = ["--rounds", "2", "--image_size", "64", "--batch_size", "2", "--backbone", "test_resnet"]
    try:
        assert main(["bench", *words, "--threads", "1", "--reading_rounds", "2"]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "test_resnet, 2@64, 1 threads, 2 rounds" in printed
    rows = dict(re.findall(r"│ (\S.*?) +│ +[\d.]+ │ +(\d+\.\d\d) │ +\d+\.\d\d to \d+\.\d\d │", printed))
    assert set(rows) == {
        "plain", "gate", "gate at stride 4", "continued inside + alignment", "fitted outside",
        "mask alignment", "energy outside", "outside penalty", "attention mining",
        "mining, half resolution", "mining, 1/4 of the batch", "input gradient penalty",
        "gate + mining (stage III)", "mining, published way", "maps alone", "maps alone, pytorch-grad-cam",
        "gate, masks of a U-Net", "gate, its masks from MaskCache",
        "PNG, decoded", "PNG, cached", "JPG, decoded", "JPG, cached",
    }  # fmt: skip
    assert float(rows["plain"]) == 1


@pytest.mark.parametrize("words", [["--rounds", "1"], ["--reading_rounds", "1"]])
def test_a_single_round_has_no_quartiles(words, capsys):
    assert main(["bench", *words]) == 2
    assert "quartiles need" in capsys.readouterr().err
