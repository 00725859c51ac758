"""The notebook-sized example of the README runs as it stands there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from cluster.client import Client


def test_the_readmes_example_of_the_sdk_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = (root / "README.md").read_text().split("## SDK", 1)[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    (tmp_path / "example.py").write_text(found[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SQUADRON_ARTEFACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SQUADRON_MODEL_STORE", raising=False)

    made = runpy.run_path("example.py")

    said = capsys.readouterr().out
    assert made["fast"].report.is_real_data
    assert made["fast"].report.reason in said
    assert "use_cudnn" in said
    assert "</svg>" in (tmp_path / "profile.html").read_text()
    with Client(store=tmp_path / "models", device="cpu") as client:
        stored = client.load_model("mine-fast")
        (scores,) = stored.predict(x=made["rows"]).values()
    assert (scores.argmax(1) == made["labels"]).mean() > 0.95
