"""A Squadron with models that show what became of a request, and with every switch on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cluster.optimization.fetch import fetch
from tests.e2e.running import Running, running

WAITING = '''
import time
from pathlib import Path


class Waiting:
    """y = x, when the file `go` is there; each x that is run is noted in the file `ran`."""

    def load(self, context):
        self._folder = Path(str(context.options["folder"]))

    def warm_up(self, batch_sizes):
        pass

    def infer(self, inputs):
        with (self._folder / "ran").open("a") as file:
            file.write(f"{inputs['x'].item():g} ")
        while not (self._folder / "go").exists():
            time.sleep(0.005)
        return {"y": inputs["x"]}
'''
IDENTITY = """
class Identity:
    def load(self, context):
        pass

    def infer(self, inputs):
        return {"y": inputs["x"]}
"""
SHAPES = {"half": ("FP16", 4), "brain": ("BF16", 4), "text": ("BYTES", -1), "numbers": ("FP32", -1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """`folder` holds what the model `waiting` reads and writes."""

    server: Running
    http: httpx.Client
    folder: Path


@pytest.fixture(scope="package")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    folder = tmp_path_factory.mktemp("checklist")
    store, notes = folder / "store", folder / "notes"
    notes.mkdir()
    fetch(store, ("simple",))
    cards = {
        name: _card(store, name, IDENTITY, "Identity", *shape) for name, shape in SHAPES.items()
    }
    cards["waiting"] = _card(store, "waiting", WAITING, "Waiting", "FP32", 1)
    variants: dict[str, Any] = {name: {"source": name, "device": "cpu"} for name in cards}
    variants["simple"] = {"source": "simple", "device": "cpu"}
    variants["waiting"]["batching"] = {"max_batch_size": 1}
    variants["waiting"]["options"] = {"folder": str(notes)}
    args = {
        "server": {
            "name": "triton",
            "limits": {"max_body_bytes": 8 * 2**20},
            "shared_memory": {"enabled": True, "prefixes": ["/squadron_"]},
            "repository_control": "explicit",
            "restricted": [{"apis": ["logging"], "header": "log-key", "value": "open"}],
        },
        "store": {"path": str(store)},
        "variants": variants,
    }
    application = {"name": "squadron", "route_prefix": "/", "import_path": "actors.app:build"}
    content = {
        "http_options": {"host": "127.0.0.1", "port": 0},
        "applications": [{**application, "args": args}],
    }
    file = folder / "checklist.yaml"
    file.write_text(yaml.safe_dump(content))
    run = folder / "run"
    run.mkdir()
    with (
        running(file, run, store=store) as server,
        httpx.Client(base_url=server.http, timeout=60) as http,
    ):
        yield Checked(server=server, http=http, folder=notes)


def _card(store: Path, name: str, source: str, kind: str, datatype: str, width: int) -> str:
    folder = store / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    shape = [-1, width]
    card = {
        "name": name,
        "format": "python",
        "python_class": f"model.py:{kind}",
        "signature": {
            "inputs": [{"name": "x", "datatype": datatype, "shape": shape}],
            "outputs": [{"name": "y", "datatype": datatype, "shape": shape}],
        },
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    return name
