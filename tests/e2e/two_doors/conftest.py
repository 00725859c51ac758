"""One running Squadron for all files of this folder, ended with the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.measured_models import write_store
from tests.e2e.running import Running, running
from tests.e2e.two_doors.models import write_config


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's: `store`, `run/all.yaml` as it runs, and what it keeps."""
    made = tmp_path_factory.mktemp("two_doors")
    write_store(made / "store")
    (made / "run").mkdir()
    write_config(made / "all.yaml", made / "store")
    return made


@pytest.fixture(scope="package")
def served(folder: Path) -> Iterator[Running]:
    with running(folder / "all.yaml", folder / "run", store=folder / "store") as started:
        yield started
