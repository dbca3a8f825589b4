"""Models from elsewhere: their answers reach the tables as they are, or an error says why not."""

import pandas as pd
import pytest
import torch

from guidedattn.data import PhantomDataModule
from guidedattn.errors import ConfigError, DataError
from guidedattn.study.comparators import CSVPredictions, NoPredictions, PythonModel, judge_comparators
from guidedattn.study.onnx_model import ONNXModel

NAMES = ("clear", "nodular", "diffuse")


def phantoms(image_size=32):
    data = PhantomDataModule(train_size=3, val_size=3, test_size=7, image_size=image_size or 32, batch_size=4)
    data.predict_split = "test"
    data.setup("predict")
    return data


def brightness(images):
    """Stands for a model: [B, C, H, W] to three probabilities."""
    assert images.shape[2] == 48
    return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3)), images[:, 0, 0, 0]], 1).softmax(1)


def test_a_function_answers_at_its_own_size_in_its_own_order():
    function = f"{__name__}.brightness"
    model = PythonModel(function, image_size=48, classes=["diffuse", "clear", "nodular"])
    table = model.judge(phantoms(48), "test", NAMES)
    images = torch.stack([image["image"] for image in phantoms(48).make_dataset("test")])
    said = brightness(images)[:, [1, 2, 0]].double()
    torch.testing.assert_close(torch.tensor(table[[f"prob_{n}" for n in NAMES]].to_numpy()), said)
    assert table["predicted"].tolist() == [NAMES[k] for k in said.argmax(1)]
    assert table["label"].tolist() == [r.label for r in phantoms().records if r.split == "test"]
    with pytest.raises(ConfigError, match="are not the study's"):
        PythonModel(function, 48, classes=["a", "b"]).judge(phantoms(48), "test", NAMES)


def test_a_table_is_found_by_path_or_by_file_name_and_must_be_whole(tmp_path):
    data, file = phantoms(), tmp_path / "said.csv"
    paths = [str(record.path) for record in data.records if record.split == "test"]
    table = pd.DataFrame({"path": paths, "prob_clear": 0.1, "prob_nodular": 0.7, "prob_diffuse": 0.2})
    for known in (paths, [f"elsewhere/{path}" for path in reversed(paths)]):
        table.assign(path=known).to_csv(file, index=False)
        found = CSVPredictions(file).judge(data, "test", NAMES)
        assert found["path"].tolist() == paths
        assert set(found["predicted"]) == {"nodular"}
    assert CSVPredictions(file).judge(data, "val", NAMES) is None
    table[1:].to_csv(file, index=False)
    with pytest.raises(DataError, match=f"lacks 1 of 7 test images: {paths[0]}"):
        CSVPredictions(file).judge(data, "test", NAMES)
    table.drop(columns="prob_clear").to_csv(file, index=False)
    with pytest.raises(DataError, match="prob_clear"):
        CSVPredictions(file).judge(data, "test", NAMES)


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_onnx_file_gets_images_as_it_was_trained_on_them(tmp_path, channels_last):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    axes = [1, 2] if channels_last else [2, 3]
    shape = ["batch", 32, 32, 3] if channels_last else ["batch", 3, 32, 32]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=0)],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / "m.onnx"))
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    comparator = ONNXModel(tmp_path / "m.onnx", 32, mean, std, channels_last=channels_last, softmax=True)
    images = torch.rand(5, 1, 32, 32)
    wanted = ((images.mean((2, 3)) - torch.tensor(mean)) / torch.tensor(std)).softmax(1)
    torch.testing.assert_close(comparator.answer(images), wanted)
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"broken\.onnx"):
        ONNXModel(tmp_path / "broken.onnx").answer(images)


def test_a_model_without_predictions_keeps_its_place():
    said = judge_comparators(
        {"CXR-4A": NoPredictions(40.2)}, {"test": "test"}, lambda name, size: (phantoms(size), name), NAMES
    )
    assert said == {"CXR-4A": {}}
