"""The console in a real browser, asking a running Squadron."""

from __future__ import annotations

import html
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.running import Running

pytestmark = pytest.mark.e2e
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: Debian's package `chromium` has it")
def test_the_console_shows_models_experiments_and_ensembles(prod: Running, tmp_path: Path) -> None:
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000", "--dump-dom",
        f"{prod.http}/ui",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    page = html.unescape(done.stdout)
    for name in ("photo-classifier-fp32", "text-embedder", "sentiment"):
        assert f'<th scope="row">{name}</th>' in page
    assert "photo-classifier: keep_going" in page
    # The map: this node, its processors, and the processes on them.
    assert ", head</h3>" in page
    assert "<h4>cpu</h4>" in page
    assert "<strong>photo-classifier-fp32</strong>" in page
    assert "photo-classifier-lite2 takes image and gives lite2" in page
    assert 'id="key-form" hidden' in page
    # Text from the server is text: no name could become markup.
    assert "<script" in page
    assert page.count("<script") == 1
