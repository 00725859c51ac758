from __future__ import annotations

from pathlib import Path

import pytest

from cluster.engines.device import may_have_gpu


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    return tmp_path


def test_a_machine_without_any_driver_has_no_gpu(machine: Path) -> None:
    assert not may_have_gpu(machine)


def test_a_drivers_device_file_speaks_for_a_gpu(machine: Path) -> None:
    (machine / "dev/nvidiactl").touch()
    assert may_have_gpu(machine)


def test_what_cannot_be_looked_at_may_have_one(tmp_path: Path) -> None:
    assert may_have_gpu(tmp_path)
