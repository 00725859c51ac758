"""The list of regions that the doors of a node share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.extensions.region_registry import RegionRegistry
from cluster.errors import AlreadyExists
from cluster.protocols.extensions.shared_memory import Registration


def asked(name: str) -> Registration:
    return Registration(name=name, key=f"/{name}", offset=0, byte_size=8)


def test_every_change_has_a_stamp_of_its_own_however_fast_they_come(tmp_path: Path) -> None:
    registry, other = RegionRegistry(tmp_path), RegionRegistry(tmp_path)
    about = os.stat(tmp_path)
    stamps = [other.stamp()]
    for _ in range(200):
        registry.add(asked("r"), about, "", 10)
        stamps.append(other.stamp())
        registry.remove("r")
        stamps.append(other.stamp())

    assert len(set(stamps)) == 401
    times = [changed_ns for _, changed_ns in stamps]
    assert times == sorted(times)


def test_what_one_door_writes_another_one_reads(tmp_path: Path) -> None:
    here, there = RegionRegistry(tmp_path), RegionRegistry(tmp_path)
    about = os.stat(tmp_path)
    added = [here.add(asked(name), about, "/proc/1/fd/3", 10) for name in "ab"]

    assert there.entries() == {entry.name: entry for entry in added}
    assert there.remove("a") == [added[0]]
    assert list(here.entries()) == ["b"]
    assert here.remove() == [added[1]]
    assert here.remove() == []


def test_a_name_that_is_taken_leaves_the_list_as_it_was(tmp_path: Path) -> None:
    registry = RegionRegistry(tmp_path)
    about = os.stat(tmp_path)
    registry.add(asked("r"), about, "", 10)
    before = registry.stamp()

    with pytest.raises(AlreadyExists):
        registry.add(asked("r"), about, "", 10)

    assert registry.stamp() == before
