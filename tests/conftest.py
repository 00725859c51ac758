"""What every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Hypothesis fails an example that takes 200 ms: a timed assertion, and wrong on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
IS_WHOLE = os.environ.get("SQUADRON_CONFORMANCE") == "1"
"""`make conformance`; `make test` runs a slice of what takes minutes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left = [item for item in items if not IS_WHOLE and item.get_closest_marker("whole")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why a test was run again: one that passes the second time would hide its first failure."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed, and was run again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


@pytest.fixture(autouse=True, scope="module")
def _metrics_folder_as_found() -> Iterator[None]:
    """A replica made in the test's own process writes its metrics into a folder that it puts into
    the environment; processes that later tests start would write there too, after it is gone."""
    name = "PROMETHEUS_MULTIPROC_DIR"
    found = os.environ.get(name)
    yield
    if found is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = found


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
