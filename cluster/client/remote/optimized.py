"""A search on a server's cluster, and the model that comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.client.backend import Backend
from cluster.client.inputs import as_array
from cluster.client.remote.http import HttpServer
from cluster.client.remote.jobs import run_job, store_of_job
from cluster.client.remote.told import optimize_report
from cluster.config.model_card import ModelCard
from cluster.errors import ConfigError, EngineFailed, ModelNotFound, Unsupported
from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.intake.data import LABELS_KEY, Dataset
from cluster.optimization.progress import Progress
from cluster.tensors import Array, Signature

if TYPE_CHECKING:
    from cluster.optimization.search.report import OptimizeReport

STAYS_HERE = ("custom_operators", "example")
"""Keywords of `optimize` that are of a torch module."""


class OptimizedBackend:
    """See `Backend`. What the search chose lies on the server; it answers when it is served there.

    `added`: name and version in the server's store, once it is there.
    """

    is_remote = True

    def __init__(self, server: HttpServer, job_id: str, original: Backend, *, is_new: bool) -> None:
        """`is_new`: something else than the original was chosen."""
        self.server = server
        self.job_id = job_id
        self.added: tuple[str, str] | None = None
        self._original = original
        self._is_new = is_new
        self._served: Backend | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        return self._original.name

    @property
    def is_batched(self) -> bool:
        return self._original.is_batched

    @property
    def signature(self) -> Signature:
        return self._original.signature

    def infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        """Raises: Unsupported while what was chosen is not served, with what to do."""
        if self._is_closed:
            raise EngineFailed(f"model {self.name!r} was unloaded")
        return self.served().infer(inputs, outputs)

    def served(self) -> Backend:
        """What answers. Raises: as `infer`."""
        if not self._is_new:
            return self._original
        if self._served is None:
            self._served = self._opened()
        return self._served

    def add(self, name: str) -> ModelCard:
        """The card, in the server's store from now on."""
        card = ModelCard.model_validate(store_of_job(self.server, self.job_id, name))
        self.added = (card.name, card.version)
        return card

    def close(self) -> None:
        self._is_closed = True

    def _opened(self) -> Backend:
        if self.added is None:
            raise Unsupported(
                f"what the search chose for {self.name} lies on the server and is not served: "
                "client.add_to_store(model, NAME) puts it into the server's store"
            )
        name, version = self.added
        try:
            return self.server.open(f"{name}/{version}")
        except ModelNotFound:
            raise Unsupported(
                f"{name}/{version} is in the server's store and not served: load it "
                f"(POST /v2/repository/models/{name}/load, with repository_control: explicit), or "
                f"write it into the YAML: variants.{name}: {{source: {name}/{version}}}"
            ) from None


def search_there(
    server: HttpServer,
    original: Backend,
    model: str,
    *,
    limits: GateLimits | None,
    data: Any,
    progress: Progress | None,
    candidates: Sequence[str | Path],
    **wishes: Any,
) -> tuple[OptimizedBackend, OptimizeReport, dict[str, str]]:
    """The model, what the search found and what each option did.

    Raises: ConfigError for what cannot be said of a model that is elsewhere, and as the search.
    """
    for key in STAYS_HERE:
        if wishes.pop(key, None):
            raise ConfigError(
                f"{key} is for a torch module, which is optimised in its own process; a server's "
                "model is an artefact",
                key=key,
            )
    if wishes["target_device"] == "mobile":
        raise ConfigError(
            "target_device 'mobile' makes files for phones, which are made here: optimise the "
            "model's file with Client()",
            key="target_device",
            value="mobile",
        )
    if wishes["timeout_s"] is None:
        del wishes["timeout_s"]  # the server's own
    content = {
        "kind": "optimize",
        "model": model,
        **wishes,
        "options": dict(wishes["options"] or {}),
        "candidates": [str(each) for each in candidates],
        "limits": asdict(limits) if limits is not None else {},
    }
    job_id, result = run_job(server, content, arrays_of(data), progress)
    report = optimize_report(result["report"])
    is_new = not report.chosen.is_reference
    made = OptimizedBackend(server, job_id, original, is_new=is_new)
    return made, report, dict(result["applied"])


def arrays_of(data: Any) -> dict[str, Array] | None:
    """What `optimize` takes as data, as arrays whose first axis counts the rows.

    Raises: ConfigError for a folder of pictures or texts, which the server cannot prepare from
    here.
    """
    if data is None:
        return None
    if isinstance(data, Mapping):
        return {str(name): as_array(value, None) for name, value in data.items()}
    if isinstance(data, Dataset):
        return _stacked(data)
    folder = Path(data)
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise ConfigError(
            f"{folder}: holds no .npz file; to a server go arrays by input name, as in "
            '{"x": rows, "labels": classes}',
            file=str(folder),
            key="data",
        )
    parts = [dict(_read(file)) for file in files]
    names = set.intersection(*(set(part) for part in parts))
    return {name: np.concatenate([part[name] for part in parts]) for name in sorted(names)}


def _stacked(data: Dataset) -> dict[str, Array]:
    found = {name: np.concatenate([item[name] for item in data.items]) for name in data.items[0]}
    if data.labels is not None:
        found[LABELS_KEY] = np.asarray(data.labels, np.int64)
    return found


def _read(file: Path) -> Iterator[tuple[str, Array]]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            yield from ((name, archive[name]) for name in archive.files)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read as arrays: {error}", file=str(file)) from None
