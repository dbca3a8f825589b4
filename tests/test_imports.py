"""Who may import whom, read from the syntax trees."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "guidedattn"
FAMILIES = {"backbones", "heads", "gates", "masks", "explainers", "losses", "metrics"}
LAYERS = [
    {"errors", "files", "jobs", "launchers"},
    {"component", "checkpoints", "optim"},  # what components, or the modules that own them, are built with
    {"guidance", "backgrounds", "layers"},
    FAMILIES,
    {"classifier", "segmenter"},
    {"arguments", "features"},
    {
        "callbacks",
        "figures",
        "cli_errors",
        "shortcut",
        "study",
        "tune",
        "demo",
        "bench",
        "bench_caches",
        "mask_cache",
    },
    {"training", "data_cli"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
RUNS_MODELS_ON_DATA = {
    "demo", "training", "cli_errors", "data_cli", "shortcut", "study", "tune", "mask_cache", "bench_caches"
}  # fmt: skip
FRAMEWORK = {"lightning", "lightning_utilities", "torch", "torchmetrics", "torchvision"}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, at its top or inside a function, unless for type checkers only."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.update(
                f"guidedattn.{alias.name}" if node.module == "guidedattn" else str(node.module)
                for alias in node.names
            )
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def room(module: str) -> str:
    """`guidedattn.masks.unet` is in the room `masks`."""
    return module.split(".")[1]


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(("guidedattn", *path.relative_to(PACKAGE).with_suffix("").parts)): imports(path)
    for path in FILES
}
OWN = {
    name: {room(module) for module in found if module.startswith("guidedattn.")}
    for name, found in MODULES.items()
    if name != "guidedattn.__init__"
}


def test_every_module_has_its_place():
    assert {room(name) for name in OWN} == {*LEVEL, "data"}


@pytest.mark.parametrize("name", [name for name in OWN if room(name) != "data"])
def test_a_module_imports_only_from_below(name):
    own = room(name)
    for other in OWN[name] - {own}:
        if other == "data":
            assert own in RUNS_MODELS_ON_DATA, f"{name} imports data"
        else:
            assert LEVEL[other] <= LEVEL[own], f"{name} imports {other}, which stands above it"
            assert not {own, other} <= FAMILIES, f"{name} imports {other}: families do not know each other"


@pytest.mark.parametrize("name", [name for name in OWN if room(name) == "data"])
def test_data_knows_nothing_of_models(name):
    assert OWN[name] <= {"data", "errors", "files"}


@pytest.mark.parametrize(
    ("package", "owner"),
    [
        ("timm", "guidedattn.backbones.timm"),
        ("segmentation_models_pytorch", "guidedattn.masks.unet"),
        ("safetensors", "guidedattn.checkpoints"),
        ("matplotlib", "guidedattn.figures"),
        ("filelock", "guidedattn.files"),
        ("submitit", "guidedattn.launchers"),
        ("pytorch_grad_cam", "guidedattn.metrics.grad_cam"),
        ("PIL", "guidedattn.data.images"),
        ("scipy", "guidedattn.masks.parts"),
        ("imagehash", "guidedattn.data.duplicates"),
        ("pydicom", "guidedattn.data.dicom"),
        ("fsspec", "guidedattn.data.paths"),
        ("onnxruntime", "guidedattn.study.onnx_model"),
        ("optuna", "guidedattn.tune"),
        ("statsmodels", "guidedattn.study.statistics"),
    ],
)
def test_each_third_party_package_has_one_importer(package, owner):
    importers = {name for name, found in MODULES.items() if any(m.split(".")[0] == package for m in found)}
    assert importers == {owner}


def test_the_command_line_imports_nothing_heavy_before_it_knows_the_command():
    for name in ("guidedattn.__init__", "guidedattn.cli", "guidedattn.__main__", "guidedattn.errors"):
        for module in MODULES[name]:
            assert module.split(".")[0] in {*sys.stdlib_module_names, "guidedattn"}, (
                f"{name} imports {module}"
            )


def test_test_only_packages_are_not_imported():
    for name, found in MODULES.items():
        packages = {module.split(".")[0] for module in found}
        assert not packages & {"sklearn", "hypothesis", "pytest", "tests", "examples"}, name
