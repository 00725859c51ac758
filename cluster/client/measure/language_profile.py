"""Where a language model's time goes: each layer's parts, reading the prompt and writing tokens."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import InvalidRequest, Unsupported
from cluster.optimization.profile.report import OperatorTime, ProfileReport
from cluster.tensors import Array

if TYPE_CHECKING:
    from cluster.client.staged.language import LanguageBackend

NUM_PROMPT = 32
NUM_WRITTEN = 4
PREFILL, DECODE = "prefill", "decode"
_MARK = "squadron:"


def profile_language(
    backend: LanguageBackend, inputs: Mapping[str, Array] | None, num_calls: int
) -> ProfileReport:
    """A call is a prompt read at once (`prefill`) and `NUM_WRITTEN` tokens written one by one
    (`decode`). An operator's path is phase, layer, the layer's part, operator.

    `inputs`: `input_ids`, of which the first row is the prompt; None: tokens 0 to 31.
    Raises: Unsupported for layers that are no torch modules; InvalidRequest for no tokens.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    prompt = _prompt(backend, inputs)
    backend.write(prompt, NUM_WRITTEN)  # warm-up
    started_s = time.perf_counter()
    for _ in range(num_calls):
        backend.write(prompt, NUM_WRITTEN)
    call_us = 1e6 * (time.perf_counter() - started_s) / num_calls
    with _marked(backend), record(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        for _ in range(num_calls):
            backend.write(prompt, NUM_WRITTEN, _phase)
    return ProfileReport(
        model=backend.name,
        engine="torch",
        num_calls=num_calls,
        call_us=call_us,
        operators=_operators(seen, num_calls),
        peak_bytes=0,
        energy_joule=None,
        energy_note="not readable",
        trace=_trace(seen),
    )


def _prompt(backend: LanguageBackend, inputs: Mapping[str, Array] | None) -> Array:
    if inputs is None:
        return np.arange(min(NUM_PROMPT, backend.vocabulary), dtype=np.int64)[None]
    found: Array = np.atleast_2d(np.asarray(inputs["input_ids"], dtype=np.int64))[:1]
    if not found.size:
        raise InvalidRequest("input_ids holds no tokens: there is nothing to profile")
    return found


@contextmanager
def _phase(name: str) -> Iterator[None]:
    from torch.profiler import record_function

    with record_function(f"{_MARK}{name}"):
        yield


@contextmanager
def _marked(backend: LanguageBackend) -> Iterator[None]:
    """The parts of every layer tell the profiler when they begin and end."""
    from torch.profiler import record_function

    running: list[Any] = []

    def begins(label: str) -> Any:
        def hook(*_: Any) -> None:
            mark: Any = record_function(f"{_MARK}{label}")
            mark.__enter__()
            running.append(mark)

        return hook

    def ends(*_: Any) -> None:
        running.pop().__exit__(None, None, None)

    modules = dict(backend.layer_parts())
    if not modules:
        raise Unsupported(f"{backend.name}: its layers are no torch modules")
    with ExitStack() as hooks:
        for label, module in modules.items():
            hooks.callback(module.register_forward_pre_hook(begins(label)).remove)
            hooks.callback(module.register_forward_hook(ends, always_call=True).remove)
        yield


def _operators(seen: Any, num_calls: int) -> tuple[OperatorTime, ...]:
    spent: dict[tuple[str, ...], list[float]] = {}
    for event in seen.events():
        if event.name.startswith(_MARK) or event.self_cpu_time_total <= 0:
            continue
        entry = spent.setdefault((*_place(event), event.name), [0.0, 0.0])
        entry[0] += event.self_cpu_time_total
        entry[1] += max(0, getattr(event, "self_cpu_memory_usage", 0))
    return tuple(
        OperatorTime(
            path=path,
            operator=path[-1],
            us_per_call=us / num_calls,
            output_bytes=int(num_bytes // num_calls),
        )
        for path, (us, num_bytes) in spent.items()
    )


def _place(event: Any) -> tuple[str, ...]:
    """Phase and part of the layer that an operator ran in."""
    labels: list[str] = []
    while (event := event.cpu_parent) is not None:
        if event.name.startswith(_MARK):
            labels.append(event.name.removeprefix(_MARK))
    return tuple(part for label in reversed(labels) for part in label.split("/")) or ("outside",)


def _trace(seen: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(file))
        return file.read_text(encoding="utf-8")
