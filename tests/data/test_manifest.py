from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image

from guidedattn.data import Manifest, ManifestSource, MaskedImageDataModule, Record, read_image
from guidedattn.data.paths import RemotePath, as_path
from guidedattn.errors import DataError


def example(root: Path) -> Manifest:
    records = [
        Record(root / "b.png", "x|y", "S", "p1", "PA", root / "masks" / "b.png", "train", "g", "00ff"),
        Record(root / "a.png", "x", "S", split="test"),
        Record(RemotePath("s3://bucket/c.png"), "x", "R", split="val"),
    ]
    return Manifest.from_records(records, root)


def test_the_columns_and_the_order_are_fixed_and_paths_are_relative(tmp_path: Path) -> None:
    path = example(tmp_path).write(tmp_path / "list.csv")
    assert path.read_text() == (
        "path,label,source,patient,view,mask,split,group,sha256\n"
        "s3://bucket/c.png,x,R,,,,val,,\n"
        "a.png,x,S,,,,test,,\n"
        "b.png,x|y,S,p1,PA,masks/b.png,train,g,00ff\n"
    )


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    manifest = example(tmp_path)
    again = Manifest.read(manifest.write(tmp_path / "deep" / "list.csv"))
    assert list(ManifestSource(tmp_path / "deep" / "list.csv").records()) == list(again.records())
    moved = Manifest.from_records(manifest.records(), tmp_path / "elsewhere")
    assert moved.table["path"].tolist()[1:] == ["../a.png", "../b.png"]
    assert list(moved.records()) == list(manifest.records())


def test_the_digest_is_what_sha256sum_writes_and_is_checked(tmp_path: Path) -> None:
    path = example(tmp_path).write(tmp_path / "list.csv")
    subprocess.run(["sha256sum", "--check", "list.csv.sha256"], cwd=tmp_path, check=True)
    path.write_text(path.read_text().replace("p1", "p2"))
    with pytest.raises(
        DataError, match=r"list\.csv: changed since it was written .*delete list\.csv\.sha256"
    ):
        MaskedImageDataModule(manifest=path).setup("fit")
    (tmp_path / "list.csv.sha256").unlink()
    assert len(Manifest.read(path)) == 3


def test_a_users_table_needs_path_and_label_alone(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("label,colour,path\nx,red,a.png\n")
    (record,) = Manifest.read(tmp_path / "list.csv").records()
    assert record == Record(tmp_path / "a.png", "x", "manifest")


def test_it_shows_counts_and_rows(tmp_path: Path) -> None:
    manifest = example(tmp_path)
    counts = manifest.counts().set_index(["source", "label"])
    assert counts.loc[("S", "x")].to_dict() == {"train": 1, "val": 0, "test": 1, "all": 2}
    assert counts.loc[("S", "y"), "train"] == 1
    assert str(manifest).startswith("3 images\n")
    html = manifest._repr_html_()
    assert html.count("<table") == 2
    assert "s3://bucket/c.png" in html


# URLs


@pytest.fixture
def bucket(make_folders: Callable[..., Path], tmp_path: Path) -> Path:
    """A manifest of ten images and five masks that lie behind URLs."""
    data = MaskedImageDataModule(root=make_folders(classes=["cat"]), mask_root=tmp_path / "masks")
    table = data.manifest()
    files = fsspec.filesystem("memory")
    for column in ("path", "mask"):
        for name in filter(None, table[column]):
            files.pipe_file(f"/{Path(name).relative_to(tmp_path)}", Path(name).read_bytes())
        table[column] = table[column].str.replace(f"{tmp_path}/", "memory://", regex=False)
    Manifest(table).write(tmp_path / "remote.csv")
    return tmp_path


def test_images_and_masks_are_read_from_behind_urls(bucket: Path) -> None:
    remote = MaskedImageDataModule(manifest=bucket / "remote.csv", image_size=8)
    remote.setup("fit")
    batch = next(iter(remote.val_dataloader()))
    assert batch["path"][0].startswith("memory://images/cat/")
    local = read_image(bucket / batch["path"][0].removeprefix("memory://"))
    assert torch.equal(read_image(batch["path"][0]), local)
    assert sum(int(batch["has_mask"].sum()) for batch in remote.train_dataloader()) > 0
    assert any("10 images are URLs" in note for note in remote.report.notes)


def test_a_url_that_fails_is_named(bucket: Path) -> None:
    with pytest.raises(DataError, match=r"memory://none\.png: no such file"):
        read_image("memory://none.png")
    with pytest.raises(DataError, match=r"nosuch://a\.png: the URL cannot be opened"):
        read_image("nosuch://a.png")


def test_a_local_path_does_not_load_fsspec_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: pytest.fail(f"asked for {url}"))
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    assert read_image(str(tmp_path / "a.png")).shape == (1, 2, 3)
    assert isinstance(as_path("a/b.png"), Path)
