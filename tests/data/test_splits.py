from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidedattn.data import Record
from guidedattn.data.patients import identities
from guidedattn.data.splits import check_leaks, require_classes, split_by_image, split_by_patient
from guidedattn.errors import ConfigError, DataError


@st.composite
def collections(draw: st.DrawFn) -> list[Record]:
    """Records of a few sources, patients with several images and classes, shared groups."""
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from("AB"),
                st.sampled_from(["x", "y", "x|y"]),
                st.integers(0, 12),
                st.sampled_from(["", "", "", "g1", "g2", "g1|g2"]),
            ),
            max_size=40,
        )
    )
    return [
        Record(Path(f"/data/{source}/{i}.png"), label, source, f"p{patient}" if patient else "", group=group)
        for i, (source, label, patient, group) in enumerate(rows)
    ]


def by_path(records: list[Record]) -> dict[Path, Record]:
    return {record.path: record for record in records}


@settings(deadline=None)
@given(collections(), st.integers(0, 5), st.randoms())
def test_the_order_of_the_records_does_not_matter(records: list[Record], seed: int, random: object) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert by_path(split_by_patient(shuffled, seed)) == by_path(split_by_patient(records, seed))
    assert by_path(split_by_image(shuffled, seed)) == by_path(split_by_image(records, seed))


@settings(deadline=None)
@given(collections(), st.integers(0, 5))
def test_patients_and_groups_stay_whole_and_no_record_is_lost(records: list[Record], seed: int) -> None:
    result = split_by_patient(records, seed)
    assert [replace(record, split="") for record in result] == records
    assert all(record.split in ("train", "val", "test") for record in result)
    where = defaultdict(set)
    for record in result:
        for identity in identities(record):
            where[identity].add(record.split)
    assert all(len(splits) == 1 for splits in where.values())


@settings(deadline=None)
@given(collections(), st.integers(0, 5), st.data())
def test_a_given_split_is_kept_and_takes_its_patient_along(
    records: list[Record], seed: int, data: st.DataObject
) -> None:
    if not records:
        return
    index = data.draw(st.integers(0, len(records) - 1))
    records[index] = replace(records[index], split="val")
    result = split_by_patient(records, seed)
    assert result[index].split == "val"
    mine = set(identities(records[index]))
    assert all(r.split == "val" for r in result if mine & set(identities(r)))


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 20))
def test_each_class_is_in_each_split_when_it_has_three_patients(extra: list[int], seed: int) -> None:
    records = [
        Record(Path(f"/d/{k}/{i}.png"), f"class {k}", f"source {i % 3}", f"{k}-{i // 2 if i > 4 else i}")
        for k, count in enumerate(extra)
        for i in range(count + 2)
    ]
    require_classes(
        split_by_patient(records, seed), [f"class {k}" for k in range(len(extra))], ["train", "val", "test"]
    )


def test_where_the_files_lie_does_not_matter() -> None:
    def at(root: str) -> list[str]:
        records = [Record(Path(f"{root}/{i // 9}/{i}.png"), "x", "A") for i in range(50)]
        return [record.split for record in split_by_patient(records, 3)]

    assert at("/home/me/data") == at("/mnt/x") == at("relative") == at("up/../down")
    assert sorted(Counter(at("/data")).values()) == [5, 5, 40]


def test_seeds_differ_and_the_split_of_a_seed_never_changes() -> None:
    records = [Record(Path(f"/d/{i:02}.png"), "x", "A", f"p{i}") for i in range(20)]

    def tested(seed: int) -> list[str]:
        return [r.patient for r in split_by_patient(records, seed) if r.split != "train"]

    assert tested(0) == ["p3", "p7", "p15", "p16"]
    assert tested(0) != tested(1)


def test_every_source_and_class_comes_near_to_its_share() -> None:
    sizes = [1] * 60 + [2] * 20 + [3] * 10 + [12]
    records = [
        Record(Path(f"/{s}/{c}/{p}-{i}.png"), c, s, f"{c}{p}")
        for s in "AB"
        for c in "xyz"
        for p, size in enumerate(sizes)
        for i in range(size)
    ]
    cells = Counter((r.source, r.label, r.split) for r in split_by_patient(records, 0))
    for s in "AB":
        for c in "xyz":
            assert abs(cells[s, c, "train"] - 0.8 * sum(sizes)) <= 3
            assert abs(cells[s, c, "val"] - 0.1 * sum(sizes)) <= 2
            assert abs(cells[s, c, "test"] - 0.1 * sum(sizes)) <= 2


def test_patients_of_two_sources_with_one_id_are_two_people() -> None:
    records = [Record(Path(f"/{s}/1.png"), "x", s, "1", split=t) for s, t in (("A", "train"), ("B", "test"))]
    check_leaks(records)


def test_by_image_is_near_to_its_share_and_tears_patients() -> None:
    records = [Record(Path(f"/d/{i:03}.png"), "xy"[i % 2], "A", f"p{i // 10}") for i in range(100)]
    result = split_by_image(records, 0)
    counts = {"train": 40, "val": 5, "test": 5}
    assert Counter((r.label, r.split) for r in result) == {(c, s): n for c in "xy" for s, n in counts.items()}
    with pytest.raises(DataError, match="patient A/p"):
        check_leaks(result)


def test_fractions_must_be_shares() -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        split_by_patient([], 0, (0.8, 0.1, 0.2))
    two = split_by_patient([Record(Path(f"/{i}.png"), "x", "A") for i in range(10)], 0, (0.8, 0.2, 0.0))
    assert Counter(r.split for r in two) == {"train": 8, "val": 2}
