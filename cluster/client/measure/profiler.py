"""Where the time of a model's calls goes, by the counters of its engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.client.embedded import EngineBackend
from cluster.client.measure.samples import sample_row
from cluster.client.values import Told
from cluster.engines.table import default_engine
from cluster.errors import InvalidRequest, Unsupported
from cluster.optimization.intake.model import GivenModel
from cluster.optimization.profile.collect import profile
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
    between a random row is profiled.

    Works embedded only: the protocol has no operators' times. `squadron profile MODEL` on the
    server's machine measures the same artefact.
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
        """Raises: Unsupported for a model of a server's."""
        if self._model.is_remote:
            raise Unsupported(
                "InferenceProfiler works embedded only: a server does not tell the times of its "
                "operators; run `squadron profile MODEL` on its machine"
            )
        self.seen = None
        self._model.watch(self)

    def stop(self) -> Profile:
        """Raises: as `cluster.optimization.profile.collect.profile`."""
        self._model.unwatch(self)
        self._profile = _measured(self._model, self.seen, self._num_calls)
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


def _measured(model: Model, seen: dict[str, Array] | None, num_calls: int) -> Profile:
    backend = model.backend
    inputs = seen if seen is not None else sample_row(backend)
    if isinstance(backend, EngineBackend):
        variant = backend.variant
        given = GivenModel(
            name=variant.card.name, sha256="", card=variant.card, folder=variant.folder
        )
        report = profile(
            given,
            backend.prepare(inputs),
            engine=variant.engine or default_engine(variant.card.format),
            num_calls=num_calls,
            threads=backend.threads,
        )
    else:
        report = _of_module(model, inputs, num_calls)
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


def _of_module(model: Model, inputs: Mapping[str, Array], num_calls: int) -> ProfileReport:
    from cluster.client.torch.module import ModuleBackend
    from cluster.config.model_card import ModelCard, SignatureCard, TensorCard

    backend = model.backend
    if not isinstance(backend, ModuleBackend):
        raise Unsupported(
            f"{model.name}: profiled can be models of onnxruntime, openvino and torch"
        )
    cards = [
        TensorCard(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))
        for spec in backend.signature.inputs
    ]
    card = ModelCard(
        name=backend.name, format="fake", signature=SignatureCard(inputs=cards, outputs=cards)
    )
    given = GivenModel(
        name=backend.name,
        sha256="",
        card=card,
        folder=Path(),
        module=backend.module,
        example=backend.example,
    )
    ordered = {name: inputs[name] for name in backend.example}
    return profile(given, ordered, num_calls=num_calls, threads=backend.threads)
