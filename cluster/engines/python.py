"""A user's own class as a model."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from cluster.config.device import parse_device
from cluster.engines.artefact import artefact_file, check_sha256, inside
from cluster.engines.engine import EngineFacts, EngineSetup
from cluster.engines.memory import is_out_of_memory
from cluster.engines.warm_up import run_zeros
from cluster.errors import ConfigError, EngineFailed, OutOfMemory, SquadronError
from cluster.processing.signature_check import check_inputs, check_outputs, disagreement
from cluster.requests import Parameter
from cluster.tensors import Array, Signature, tensor

T = TypeVar("T")
_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadContext:
    """What a user's class is told when it is loaded. `device` is the config's setting, checked
    for its form only: the class decides what it does with it."""

    folder: Path
    device: str
    threads: int
    options: dict[str, str | int | float | bool]
    signature: Signature


class PythonEngine:
    """Format `python`: the class that the card's `python_class` names, as `package.module:Class`
    or as `file.py:Class` with the file in the model's folder.

    The class has no arguments and these methods; the last two may be missing:

        load(context: LoadContext) -> None
        infer(inputs: dict[str, ndarray]) -> dict[str, ndarray]
        warm_up(batch_sizes: tuple[int, ...]) -> None
        close() -> None

    For a card that is `decoupled`, a generator stands in the place of `infer`; each thing that it
    yields is one response, and it is closed (GeneratorExit at its `yield`) when its caller is gone:

        stream(inputs: dict[str, ndarray], parameters: dict) -> Iterator[dict[str, ndarray]]

    It runs with the rights of the server, so it comes from the operator's config and store only,
    never over the network. It may raise the errors of `cluster.errors`; any other becomes an
    EngineFailed with its type and message, without a traceback. Options are the class's own.
    """

    def __init__(self, setup: EngineSetup) -> None:
        parse_device(setup.device)
        self._setup = setup
        self._signature = setup.card.raw_signature()
        self._model: Any = None

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            engine="python",
            provider=self._setup.card.python_class,
            device=self._setup.device,
            precision=self._setup.card.precision,
            threads=self._setup.threads,
            weight_bytes=0,
        )

    def load(self) -> None:
        if self._setup.card.artefact:
            artefact_file(self._setup)
        made = _class_of(self._setup)
        context = LoadContext(
            folder=self._setup.folder,
            device=self._setup.device,
            threads=self._setup.threads,
            options=dict(self._setup.options),
            signature=self._signature,
        )
        try:
            model = made()
            model.load(context)
        except SquadronError:
            raise
        except BaseException as error:
            if _is_from_outside(error):
                raise
            name = self._setup.card.python_class
            raise ConfigError(
                f"{name}: loading failed: {type(error).__name__}: {error}", key="python_class"
            ) from error
        self._model = model

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        own = getattr(self._model, "warm_up", None)
        if own is not None:
            self._guarded("warm_up", lambda: own(batch_sizes))
            return
        work = self._first_response if self._setup.card.decoupled else self.infer
        run_zeros(work, self._signature, batch_sizes, is_batched=self._setup.card.batched)

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        model = self._model
        if model is None:
            raise EngineFailed("the engine is closed")
        is_batched = self._setup.card.batched
        rows = check_inputs(inputs, self._signature, is_batched=is_batched)
        answer = self._guarded("infer", lambda: model.infer(_locked(inputs)))
        outputs = self._arrays(answer, "infer")
        check_outputs(outputs, self._signature.outputs, rows=rows, is_batched=is_batched)
        return outputs

    def stream(
        self, inputs: dict[str, Array], parameters: dict[str, Parameter]
    ) -> Generator[dict[str, Array], None, None]:
        """See `StreamingEngine`. A response may hold some of the outputs only."""
        model = self._model
        if model is None:
            raise EngineFailed("the engine is closed")
        check_inputs(inputs, self._signature, is_batched=self._setup.card.batched)
        steps = self._guarded("stream", lambda: iter(model.stream(_locked(inputs), parameters)))
        try:
            while (answer := self._guarded("stream", lambda: next(steps, _END))) is not _END:
                yield self._response(answer)
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                self._guarded("stream", close)

    def _response(self, answer: object) -> dict[str, Array]:
        outputs = self._arrays(answer, "stream")
        for name, array in outputs.items():
            spec = self._signature.output(name)
            assert spec is not None  # the names were checked
            complaint = disagreement(array, spec, is_batched=self._setup.card.batched)
            if complaint:
                raise EngineFailed(f"output {name!r}: {complaint}", tensor=name)
        return outputs

    def _first_response(self, inputs: dict[str, Array]) -> None:
        # The rest may never end.
        with closing(self.stream(inputs, {})) as steps, suppress(StopIteration):
            next(steps)

    def close(self) -> None:
        model, self._model = self._model, None
        own = getattr(model, "close", None)
        if own is not None:
            self._guarded("close", own)

    def _guarded(self, method: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except SquadronError:
            raise
        except BaseException as error:
            # `sys.exit()` in a model too: it must not take the batching thread with it.
            if _is_from_outside(error):
                raise
            place = f"{self._setup.card.python_class}.{method}"
            if isinstance(error, Exception) and is_out_of_memory(error):
                raise OutOfMemory(f"{place} had too little memory: {error}") from error
            raise EngineFailed(f"{place} raised {type(error).__name__}: {error}") from error

    def _arrays(self, answer: object, method: str) -> dict[str, Array]:
        place = f"{self._setup.card.python_class}.{method}"
        if not isinstance(answer, dict):
            raise EngineFailed(f"{place} gave a {type(answer).__name__}, expected a dict of arrays")
        promised = {spec.name: spec for spec in self._signature.outputs}
        outputs: dict[str, Array] = {}
        for name, array in answer.items():
            if name not in promised:
                said = ", ".join(promised)
                raise EngineFailed(f"{place} gave an output {name!r}; the card has {said}")
            if not isinstance(array, np.ndarray):
                said = type(array).__name__
                raise EngineFailed(f"{place} gave a {said} as output {name!r}, expected an array")
            outputs[name] = array
            if promised[name].datatype == "BYTES" and array.dtype.kind in "SUO":
                outputs[name] = self._guarded(method, partial(_as_bytes, name, array))
        return outputs


def _is_from_outside(error: BaseException) -> bool:
    """Ctrl-C reaches the main thread; anywhere else the model itself has raised it. A generator
    that is closed ends by GeneratorExit."""
    if isinstance(error, KeyboardInterrupt):
        return threading.current_thread() is threading.main_thread()
    return isinstance(error, GeneratorExit | asyncio.CancelledError)


def _as_bytes(name: str, array: Array) -> Array:
    return tensor(name, array).array


def _locked(inputs: dict[str, Array]) -> dict[str, Array]:
    """Views that cannot be written: the arrays may be shared with other readers."""
    views: dict[str, Array] = {}
    for name, array in inputs.items():
        views[name] = array.view()
        views[name].flags.writeable = False
    return views


def _class_of(setup: EngineSetup) -> Any:
    named = setup.card.python_class
    place, colon, name = named.partition(":")
    if not place or not colon or not name.isidentifier():
        raise ConfigError(
            f"python_class is {named!r}; expected `package.module:Class` or `file.py:Class`",
            key="python_class",
            value=named,
        )
    try:
        module = (
            _from_file(setup, place) if place.endswith(".py") else importlib.import_module(place)
        )
        found = getattr(module, name)
    except SquadronError:
        raise
    except BaseException as error:
        if _is_from_outside(error):
            raise
        raise ConfigError(
            f"python_class {named!r} cannot be imported: {type(error).__name__}: {error}",
            key="python_class",
            value=named,
        ) from error
    for method in ("load", "stream" if setup.card.decoupled else "infer"):
        if not callable(getattr(found, method, None)):
            raise ConfigError(
                f"python_class {named!r} has no method {method!r}", key="python_class", value=named
            )
    return found


def _from_file(setup: EngineSetup, place: str) -> ModuleType:
    file = inside(setup.folder, place)
    if not file.is_file():
        raise ConfigError(f"{file}: the file of python_class is missing", file=str(file))
    if setup.card.sha256 and not setup.card.artefact:
        check_sha256(file, setup.card.sha256)
    # A name of its own: two models may both have a `model.py`.
    name = f"squadron_model_{setup.card.name}_{setup.card.version}_{file.stem}".replace(".", "_")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
