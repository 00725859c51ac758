from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.client.places import Place, make_place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(Path(tmp_path_factory.mktemp("sdk")))
