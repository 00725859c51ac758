"""Where the time of a model's calls goes, by the counters of its engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.client.measure.profiled import profile_backend
from cluster.client.remote.jobs import run_job, server_of
from cluster.client.remote.told import profile_report
from cluster.client.values import Told
from cluster.errors import InvalidRequest
from cluster.optimization.profile.page import page
from cluster.optimization.profile.report import ProfileReport, bottlenecks
from cluster.tensors import Array

if TYPE_CHECKING:
    from cluster.client.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(Told):
    """`layer_timings`: name, operator and microseconds a call, the dearest first. `memory_usage`:
    `peak_mb` of a process that serves the model (None: not measured), and megabytes that each
    layer writes. `bottlenecks`: sentences."""

    layer_timings: tuple[dict[str, Any], ...]
    memory_usage: dict[str, Any]
    bottlenecks: tuple[str, ...]
    call_ms: float
    num_calls: int
    report: ProfileReport = field(repr=False)


class InferenceProfiler:
    """Between `start` and `stop` the calls' inputs are noted; `stop` runs the last of them again
    with the engine's counters on, so that the calls themselves are not slowed down. With no call in
    between a random row is profiled. Of a torch language model, by layer: the token ids of the last
    `predict` read at once (`prefill`), and a few tokens written after them (`decode`).

    Of a model of a server's, `stop` has the server's cluster profile the same artefact with its
    engine, in a process beside those that serve (HTTP and an admin key).
    """

    def __init__(self, model: Model, *, num_calls: int = 20) -> None:
        self._model = model
        self._num_calls = num_calls
        self.seen: dict[str, Array] | None = None
        self._profile: Profile | None = None

    def __enter__(self) -> InferenceProfiler:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.stop()
        else:
            self.close()

    def start(self) -> None:
        """Raises: Unsupported for a model of a server's over gRPC."""
        if self._model.is_remote:
            server_of(self._model.backend, "a profile")
        self.seen = None
        self._model.watch(self)

    def stop(self) -> Profile:
        """Raises: as `cluster.optimization.profile.collect.profile`."""
        self._model.unwatch(self)
        self._profile = _told(_measured(self._model, self.seen, self._num_calls))
        return self._profile

    def save_html(self, path: str | Path) -> Path:
        """The report as one file that needs no network. Raises: InvalidRequest before `stop`."""
        if self._profile is None:
            raise InvalidRequest("nothing was profiled: call start() and stop() first")
        file = Path(path)
        file.write_text(page(self._profile.report), encoding="utf-8")
        return file

    def close(self) -> None:
        self._model.unwatch(self)

    def saw(
        self, inputs: Mapping[str, Array], *, rows: int, seconds: float, is_error: bool
    ) -> None:
        """Told by the model after each of its calls."""
        if not is_error:
            self.seen = dict(inputs)


def _measured(model: Model, seen: dict[str, Array] | None, num_calls: int) -> ProfileReport:
    if not model.is_remote:
        return profile_backend(model.backend, seen, num_calls)
    server = server_of(model.backend, "a profile")
    content = {"kind": "profile", "model": str(model.source), "num_calls": num_calls}
    _, result = run_job(server, content, seen)
    return profile_report(result["report"], result["trace"])


def _told(report: ProfileReport) -> Profile:
    told = report.as_dict()
    layers: Any = told["layer_timings"]
    return Profile(
        layer_timings=tuple(layers),
        memory_usage={
            "peak_mb": report.peak_bytes / 1e6 if report.peak_bytes else None,
            "layers_mb": {each["name"]: each["output_bytes"] / 1e6 for each in layers},
        },
        bottlenecks=bottlenecks(report),
        call_ms=report.call_us / 1e3,
        num_calls=report.num_calls,
        report=report,
    )
