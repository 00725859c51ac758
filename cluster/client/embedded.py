"""A model in this process: the engine that would serve it, with the processing of its card."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from cluster.engines.engine import EngineSetup
from cluster.engines.table import default_engine, make_engine
from cluster.errors import EngineFailed, InvalidRequest
from cluster.optimization.measure.as_before import torch_as_before
from cluster.optimization.measure.variant import Variant
from cluster.processing.pipeline import Pipeline
from cluster.tensors import Array, Signature


class EngineBackend:
    """See `Backend`. An engine has one caller at a time: calls take turns, their processing does
    not."""

    is_remote = False

    def __init__(self, variant: Variant, *, device: str = "auto", threads: int = 1) -> None:
        """Raises: ConfigError as the engine's `load` and the card's processing do."""
        card = variant.card
        self.variant = variant
        self.device = device
        self._pipeline = Pipeline(card, variant.folder)
        self._engine_name = variant.engine or default_engine(card.format)
        self._engine = make_engine(
            self._engine_name,
            EngineSetup(
                card=card,
                folder=variant.folder,
                device=device,
                threads=threads,
                options=dict(variant.options),
            ),
        )
        with torch_as_before(engine=self._engine_name):
            self._engine.load()
        self._turn = Lock()
        self._is_closed = False

    @property
    def name(self) -> str:
        return self.variant.card.name

    @property
    def is_batched(self) -> bool:
        return self.variant.card.batched

    @property
    def signature(self) -> Signature:
        return self._pipeline.signature

    @property
    def provider(self) -> str:
        """The runtime's own name for what computes."""
        return self._engine.facts.provider

    @property
    def threads(self) -> int:
        return self._engine.facts.threads

    def infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        arrays = self.prepare(inputs)
        signature = self.signature
        for name in outputs:
            if signature.output(name) is None:
                every = (*signature.outputs, *signature.extra_outputs)
                gives = ", ".join(repr(spec.name) for spec in every)
                raise InvalidRequest(f"unexpected output {name!r}; the model gives {gives}")
        with self._turn:
            if self._is_closed:
                raise EngineFailed(f"model {self.name!r} was unloaded")
            with torch_as_before(engine=self._engine_name):
                answer = self._engine.infer(arrays)
        wanted = set(outputs) or {spec.name for spec in signature.outputs}
        return self._pipeline.finish(answer, arrays, wanted)

    def prepare(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the artefact itself is given for these inputs."""
        return self._pipeline.merge([self._pipeline.prepare(dict(inputs))])

    def close(self) -> None:
        with self._turn:
            if not self._is_closed:
                self._is_closed = True
                self._engine.close()
