"""Profiles of one model, by each engine's own counters."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.engines.engine import EngineSetup
from cluster.engines.table import ENGINES, check_installed, default_engine, make_engine
from cluster.errors import ConfigError
from cluster.models import EngineName
from cluster.optimization.intake.model import GivenModel
from cluster.optimization.measure.as_before import torch_as_before
from cluster.optimization.measure.memory import peak_bytes
from cluster.optimization.measure.variant import Variant
from cluster.optimization.profile.energy import read_joules
from cluster.optimization.profile.report import OperatorTime, ProfileReport
from cluster.tensors import Array

WARM_UP = 3
ENERGY_CALLS = 20


def profile(
    given: GivenModel,
    row: Mapping[str, Array],
    *,
    engine: EngineName | None = None,
    num_calls: int = 20,
    threads: int = 1,
    measure_memory: bool = True,
) -> ProfileReport:
    """Times of every operator over `num_calls` calls on `row`.

    Raises: ConfigError for an engine that counts nothing, or inputs that the model refuses.
    """
    default = "torch" if given.module is not None else default_engine(given.card.format)
    chosen: EngineName = engine or default
    if chosen in ("onnxruntime", "openvino", "torch"):
        _check_runs(chosen, given)
    if num_calls < 1:
        raise ConfigError(f"num_calls is {num_calls}; allowed: 1 and more", key="num_calls")
    match chosen:
        case "onnxruntime":
            call_us, operators, trace = _onnxruntime(given, row, num_calls, threads)
        case "openvino":
            call_us, operators, trace = _openvino(given, row, num_calls, threads)
        case "torch":
            with torch_as_before(given.module):
                call_us, operators, trace = _torch(given, row, num_calls, threads)
        case other:
            raise ConfigError(
                f"engine {other} counts nothing of its own; profiled can be onnxruntime, openvino "
                "and torch. For user code: squadron profile --live PID",
                key="engine",
                value=other,
                allowed="onnxruntime, openvino, torch",
            )
    variant = Variant(card=given.card, folder=given.folder, engine=chosen)
    energy, note = (None, "not readable")
    # A module that is run as it is has no file that another process could open.
    is_file = given.module is None or chosen != "torch"
    if is_file:
        energy, note = _energy(variant, row, threads)
    peak = peak_bytes(variant, row, threads=threads) if measure_memory and is_file else 0
    return ProfileReport(
        model=given.name,
        engine=chosen,
        num_calls=num_calls,
        call_us=call_us,
        operators=operators,
        peak_bytes=peak,
        energy_joule=energy,
        energy_note=note,
        trace=trace,
    )


def _check_runs(engine: EngineName, given: GivenModel) -> None:
    """Raises: ConfigError for an engine that is not here or does not run the model's format; a
    torch module has been exported to ONNX, so it is run by those engines as well."""
    check_installed(engine)
    if engine == "torch" and given.module is not None:
        return
    formats = ENGINES[engine].formats
    if given.card.format not in formats:
        able = [name for name, entry in ENGINES.items() if given.card.format in entry.formats]
        raise ConfigError(
            f"engine {engine} does not run {given.name}, which is {given.card.format}; allowed: "
            f"{', '.join(able)}",
            key="engine",
            value=engine,
            allowed=", ".join(able),
        )


Collected = tuple[float, tuple[OperatorTime, ...], str]


def _onnxruntime(
    given: GivenModel, row: Mapping[str, Array], num_calls: int, threads: int
) -> Collected:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            str(given.folder / given.card.artefact), options, providers=["CPUExecutionProvider"]
        )
        call_us = _timed(lambda: session.run(None, dict(row)), num_calls)
        trace = Path(session.end_profiling()).read_text(encoding="utf-8")
    events = [event for event in json.loads(trace) if event.get("cat") == "Node"]
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    return call_us, operators_of(kernels, num_calls), trace


def operators_of(kernels: Sequence[Mapping[str, Any]], num_calls: int) -> tuple[OperatorTime, ...]:
    """What ONNX Runtime's trace says of each node, a call. The warm-up's calls are in the trace as
    well, before the others; what runs inside a loop or a branch is in that node's time as well, so
    such a node keeps what is its own."""
    names: dict[str, str] = {}
    durations: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for event, own_us in own_times(kernels):
        name = event["name"].removesuffix("_kernel_time")
        names[name] = event["args"].get("op_name", "?")
        durations.setdefault(name, []).append(own_us)
        sizes[name] = int(event["args"].get("output_size", 0))
    operators = []
    for name, every in durations.items():
        # A node in a loop is run many times a call.
        warm_up = len(every) * WARM_UP // (num_calls + WARM_UP)
        spent = sum(every[warm_up:]) / num_calls
        operators.append(
            OperatorTime(
                path=_path(name), operator=names[name], us_per_call=spent, output_bytes=sizes[name]
            )
        )
    return tuple(operators)


def own_times(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Each event with its duration less that of the events of its thread that lie inside it."""
    open_: list[tuple[Mapping[str, Any], float, list[float]]] = []
    for event in sorted(events, key=lambda e: (e.get("tid", 0), e["ts"], -e["dur"])):
        thread, end_us = event.get("tid", 0), event["ts"] + event["dur"]
        # By where it starts: ends are rounded to microseconds.
        while open_ and (open_[-1][0].get("tid", 0) != thread or open_[-1][1] <= event["ts"]):
            last, _, inner = open_.pop()
            yield last, max(0.0, last["dur"] - sum(inner))
        if open_:
            open_[-1][2].append(event["dur"])
        open_.append((event, end_us, []))
    while open_:
        last, _, inner = open_.pop()
        yield last, max(0.0, last["dur"] - sum(inner))


def _openvino(
    given: GivenModel, row: Mapping[str, Array], num_calls: int, threads: int
) -> Collected:
    from cluster.engines.openvino import openvino_core

    compiled = openvino_core().compile_model(
        str(given.folder / given.card.artefact),
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"},
    )
    request = compiled.create_infer_request()
    spent: dict[tuple[str, str], float] = {}

    def note() -> None:
        # The counters are of the last call alone.
        for info in request.profiling_info:
            key = (info.node_name, info.node_type)
            spent[key] = spent.get(key, 0.0) + 1e6 * info.real_time.total_seconds() / num_calls

    call_us = _timed(lambda: request.infer(dict(row)), num_calls, after=note)
    operators = tuple(
        OperatorTime(path=_path(name), operator=kind, us_per_call=us)
        for (name, kind), us in spent.items()
        if us > 0
    )
    return call_us, operators, chrome_trace(operators)


def _torch(given: GivenModel, row: Mapping[str, Array], num_calls: int, threads: int) -> Collected:
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    run: Callable[[], object]
    if given.module is not None:
        module = given.module
        tensors = [torch.from_numpy(array) for array in row.values()]
        run = lambda: module(*tensors)  # noqa: E731  (one of two ways to call)
    else:
        setup = EngineSetup(card=given.card, folder=given.folder, device="cpu", threads=threads)
        made = make_engine("torch", setup)
        made.load()
        run = lambda: made.infer(dict(row))  # noqa: E731
    torch.set_num_threads(threads)
    with torch.inference_mode():
        call_us = _timed(run, num_calls)
        with record(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            for _ in range(num_calls):
                run()
    operators = tuple(
        OperatorTime(
            path=("torch", each.key),
            operator=each.key,
            us_per_call=each.self_cpu_time_total / num_calls,
            output_bytes=max(0, each.self_cpu_memory_usage // num_calls),
        )
        for each in recorded.key_averages()
        if each.self_cpu_time_total > 0
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(file))
        return call_us, operators, file.read_text(encoding="utf-8")


def chrome_trace(operators: tuple[OperatorTime, ...]) -> str:
    """One call, operators one after the other, as a Chrome trace."""
    events: list[dict[str, object]] = []
    start_us = 0.0
    for each in operators:
        events.append({
            "name": "/".join(each.path), "cat": each.operator, "ph": "X", "pid": 1, "tid": 1,
            "ts": start_us, "dur": each.us_per_call,
        })  # fmt: skip
        start_us += each.us_per_call
    return json.dumps({"traceEvents": events})


def _timed(
    call: Callable[[], object], num_calls: int, *, after: Callable[[], None] = lambda: None
) -> float:
    """Microseconds a call, after warm-up. `after`: called after each, and not timed."""
    try:
        for _ in range(WARM_UP):
            call()
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"the model refuses the inputs: {said[0][:300]}", key="shape") from None
    spent_s = 0.0
    for _ in range(num_calls):
        started_s = time.perf_counter()
        call()
        spent_s += time.perf_counter() - started_s
        after()
    return 1e6 * spent_s / num_calls


def _energy(variant: Variant, row: Mapping[str, Array], threads: int) -> tuple[float | None, str]:
    from cluster.optimization.measure.variant import opened

    before = read_joules()
    if before is None:
        return None, "not readable"
    with opened(variant, threads=threads) as run:
        for _ in range(ENERGY_CALLS):
            run(dict(row))
    after = read_joules()
    if after is None or after < before:
        return None, "not readable"
    return (after - before) / ENERGY_CALLS, "joules a call of the whole package, others included"


def _path(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.replace(".", "/").split("/") if part) or ("?",)
