"""Profiles of tiny models on each engine, and what is said of them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.profile.collect import operators_of, profile
from cluster.optimization.profile.energy import read_joules
from cluster.optimization.profile.live import record, why
from cluster.optimization.profile.page import page
from cluster.optimization.profile.report import OperatorTime, ProfileReport, bottlenecks
from cluster.optimization.profile.rows import open_with_row
from tests.cluster.optimization.tiny_nets import TinyCnn, exported


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    exported(TinyCnn(), folder)
    return folder / "model.onnx"


def report_of(*operators: OperatorTime, call_us: float = 100) -> ProfileReport:
    return ProfileReport(
        model="<m>", engine="onnxruntime", num_calls=1, call_us=call_us, operators=operators,
        peak_bytes=0, energy_joule=None, energy_note="not readable", trace="{}",
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_engine_counts_the_convolutions(graph: Path, tmp_path: Path, engine: str) -> None:
    if find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    given, row = open_with_row(graph, store=ModelStore(tmp_path), workspace=tmp_path)

    found = profile(given, row, engine=engine, num_calls=5)  # type: ignore[arg-type]

    kinds = {each.operator for each in found.operators}
    assert any("Conv" in kind for kind in kinds)
    assert all(each.us_per_call > 0 for each in found.operators)
    assert found.call_us > 0
    events = json.loads(found.trace)
    assert events["traceEvents"] if isinstance(events, dict) else events


def test_a_torch_module_is_profiled_with_its_memory(tmp_path: Path) -> None:
    from cluster.optimization.intake.model import open_model

    module = TinyCnn()
    given = open_model(
        module, store=ModelStore(tmp_path), workspace=tmp_path, example=module.example_inputs()
    )
    found = profile(given, module.example_inputs(), num_calls=3)

    assert found.engine == "torch"
    assert any("conv" in each.operator for each in found.operators)
    assert any(each.output_bytes > 0 for each in found.operators)
    assert json.loads(found.trace)["traceEvents"]


def event(name: str, start_us: int, us: int) -> dict[str, object]:
    return {"name": f"{name}_kernel_time", "ts": start_us, "dur": us, "tid": 1,
            "args": {"op_name": name.title(), "output_size": "8"}}  # fmt: skip


def test_what_runs_in_a_loop_is_not_counted_twice_and_the_warm_up_not_at_all() -> None:
    # Three calls to warm up, which take a second each, and two that count.
    events = [event("conv", 2_000_000 * call, 1_000_000) for call in range(3)]
    for call in range(3, 5):
        start_us = 2_000_000 * call
        events.append(event("conv", start_us, 30))
        events.append(event("loop", start_us + 40, 100))
        events += [event("matmul", start_us + 50 + 20 * turn, 20) for turn in range(4)]
    loops = [event("loop", 2_000_000 * call + 1_500_000, 9) for call in range(3)]
    turns = [
        event("matmul", 2_000_000 * call + 1_500_000 + turn, 1)
        for call in range(3)
        for turn in range(4)
    ]

    found = operators_of([*loops, *turns, *events], num_calls=2)

    assert {each.operator: each.us_per_call for each in found} == {
        "Conv": 30, "Matmul": 80, "Loop": 20,
    }  # fmt: skip


def test_bottlenecks_are_told_most_costly_first() -> None:
    found = report_of(
        OperatorTime(path=("a", "conv"), operator="Conv", us_per_call=60),
        OperatorTime(path=("a", "cast"), operator="Cast", us_per_call=20),
        call_us=200,
    )

    said = bottlenecks(found)

    assert said[0].startswith("between the operators: 60%")
    assert any(each.startswith("Conv: 75% of the time in 1 nodes") for each in said)
    assert any(each.startswith("conversions between types: 25%") for each in said)
    assert any(each.startswith("one node alone, a/conv: 75%") for each in said)


@pytest.mark.parametrize(
    ("kind", "is_advised"), [("MatMul", True), ("DynamicQuantizeMatMul", False), ("QConv", False)]
)
def test_what_is_computed_in_int8_is_not_told_to_be(kind: str, is_advised: bool) -> None:
    (said,) = [
        each
        for each in bottlenecks(report_of(OperatorTime(path=("x",), operator=kind, us_per_call=90)))
        if each.startswith(kind)
    ]

    assert ("squadron optimize" in said) is is_advised


def test_the_page_opens_without_network_and_shows_names_as_text() -> None:
    operator = OperatorTime(path=("<script>",), operator="Conv", us_per_call=60)

    text = page(report_of(operator))

    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "not readable" in text


def test_energy_is_the_sum_of_the_packages_or_not_readable(tmp_path: Path) -> None:
    assert read_joules(tmp_path) is None
    for name, value in (("intel-rapl:0", "1500000"), ("intel-rapl:1", "500000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(value)

    assert read_joules(tmp_path) == 2.0


def test_a_process_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    if not Path(sys.executable).with_name("py-spy").exists():
        pytest.skip("py-spy is not installed")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    with pytest.raises(ConfigError, match=f"there is no process {process.pid}"):
        record(process.pid, tmp_path / "flames.svg", seconds=1)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="seconds is 0"):
        record(process.pid, tmp_path / "flames.svg", seconds=0)


@pytest.mark.parametrize(
    ("printed", "says"),
    [
        ("Permission Denied: Try running again with elevated permissions", "this user may not"),
        ("Error: Operation not permitted (os error 1)", "this user may not look into it; run"),
        ("Error: no Python in it\nCaused by: 7\n  at src/x.rs", "Error: no Python in it"),
        ("something else", "something else"),
    ],
)
def test_why_a_process_cannot_be_looked_into_is_told_in_a_line(printed: str, says: str) -> None:
    assert why(printed).startswith(says)
    assert "\n" not in why(printed)


def test_a_module_is_profiled_by_the_engine_that_is_asked_for(tmp_path: Path) -> None:
    from cluster.optimization.intake.model import open_model

    module = TinyCnn()
    given = open_model(
        module, store=ModelStore(tmp_path), workspace=tmp_path, example=module.example_inputs()
    )

    found = profile(
        given, module.example_inputs(), engine="onnxruntime", num_calls=2, measure_memory=False
    )

    assert found.engine == "onnxruntime"
    assert any(each.operator in ("Conv", "FusedConv") for each in found.operators)


def test_an_engine_that_does_not_run_the_format_is_one_message(graph: Path) -> None:
    done = CliRunner().invoke(app, ["profile", str(graph), "--engine", "torch"])

    assert done.exit_code == 2
    assert "engine torch does not run model, which is onnx; allowed: onnxruntime" in done.stderr


def test_a_live_profile_takes_no_model_and_says_what_it_wrote(graph: Path, tmp_path: Path) -> None:
    if not Path(sys.executable).with_name("py-spy").exists():
        pytest.skip("py-spy is not installed")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        live = ["profile", "--live", str(process.pid), "--seconds", "1"]
        svg = ["--html", str(tmp_path / "f.svg")]
        both = CliRunner().invoke(app, [*live, *svg, str(graph)])
        done = CliRunner().invoke(app, [*live, *svg, "--json"])
    finally:
        process.kill()
        process.wait()

    assert both.exit_code == 2
    assert "or --live PID, not both" in both.stderr
    if done.exit_code == 2:
        # Containers without SYS_PTRACE: then the message is what there is.
        assert "cannot be profiled" in done.stderr
        assert not (tmp_path / "f.svg").exists()
    else:
        assert json.loads(done.stdout) == {"pid": process.pid, "html": str(tmp_path / "f.svg")}
        assert "<svg" in (tmp_path / "f.svg").read_text()


def test_the_command_writes_html_trace_and_json(graph: Path, tmp_path: Path) -> None:
    html, trace = tmp_path / "p.html", tmp_path / "t.json"

    done = CliRunner().invoke(
        app,
        ["profile", str(graph), "--html", str(html), "--trace", str(trace), "--calls", "2",
         "--json"],
    )  # fmt: skip

    said = json.loads(done.stdout)
    assert done.exit_code == 0, done.output
    assert said["layer_timings"]
    assert said["bottlenecks"]
    assert "<svg" in html.read_text()
    assert json.loads(trace.read_text())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give a model, or --live PID"),
        (("--live", "1"), "--live needs --html FILE"),
        (("GRAPH", "--engine", "fake"), "engine fake counts nothing of its own"),
    ],
)
def test_what_cannot_be_profiled_is_one_message(
    graph: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = CliRunner().invoke(
        app, ["profile", *(str(graph) if each == "GRAPH" else each for each in arguments)]
    )

    assert done.exit_code == 2
    assert says in done.stderr
