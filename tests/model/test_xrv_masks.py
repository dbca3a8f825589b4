"""The torchxrayvision example, on random weights in the network's own format."""

import sys

import pytest
import torch

from examples.xrv_masks import AnatomyMask
from guidedattn.errors import ConfigError


def test_the_network_gives_masks_at_the_images_size(tmp_path):
    chestx_det = pytest.importorskip("torchxrayvision.baseline_models.chestx_det")
    torch.manual_seed(0)
    net = chestx_det.ptsemseg.pspnet.pspnet(len(chestx_det.PSPNet.targets))
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    torch.save(state, tmp_path / "pspnet_chestxray_best_model_4.pth")
    masks, _ = AnatomyMask(cache_dir=tmp_path)(torch.rand(2, 3, 96, 80), {})
    assert masks.shape == (2, 1, 96, 80)
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    with pytest.raises(ConfigError, match="did you mean Left Lung"):
        AnatomyMask(structures=["Left Lun"], cache_dir=tmp_path)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    for name in ("torchxrayvision", "torchxrayvision.baseline_models.chestx_det"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="pip install torchxrayvision"):
        AnatomyMask()
