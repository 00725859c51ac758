"""What the console puts first, by its own code: what a person who is called wants to know."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import orjson
import pytest

from tests.actors.console.test_routes import PAGE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None, reason="no JavaScript here: Debian's package `nodejs` has it"
)
NOW_S = 10_000.0


def model(name: str, state: str = "READY", **more: Any) -> dict[str, Any]:
    plain = {"kind": "variant", "replicas": 1, "reason": "", "is_colocated": False}
    return {"name": name, "state": state, **plain, **more}


def node(*processes: tuple[str, str]) -> dict[str, Any]:
    told = [
        {"kind": "replica", "variant": variant, "replica": f"r{number}", "state": state}
        for number, (variant, state) in enumerate(processes)
    ]
    return {"address": "n1", "processes": told}


def event(kind: str, subject: str, *, ago_s: float) -> dict[str, Any]:
    return {"kind": kind, "subject": subject, "at_s": NOW_S - ago_s, "reason": "SIGKILL"}


def wrongs(
    *models: dict[str, Any],
    history: dict[str, list[dict[str, float]]] | None = None,
    nodes: list[dict[str, Any]] | None = None,
    experiments: list[dict[str, Any]] | None = None,
    events: list[dict[str, Any]] | None = None,
) -> list[str]:
    page = (PAGE / "console.js").read_text()
    code = re.search(r"^function wrongs.*?^}", page, re.MULTILINE | re.DOTALL)
    lately = re.search(r"^const LATELY = .*$", page, re.MULTILINE)
    assert code is not None
    assert lately is not None
    given = orjson.dumps(
        [models, list((history or {}).items()), nodes or [], experiments or [], events or []]
    ).decode()
    done = subprocess.run(
        [str(NODE), "-e", f"{lately[0]}\n{code[0]}\nconst [models, history, ...rest] = {given};"
         f"console.log(JSON.stringify(wrongs(models, new Map(history), ...rest, {NOW_S})))"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found: list[str] = orjson.loads(done.stdout)
    return found


def test_nothing_is_wrong_where_all_is_as_the_configuration_says() -> None:
    quiet = [{"rate": 5.0, "ms": 1.0, "failed": 0.0}]

    assert (
        wrongs(
            model("a"),
            model("inside", is_colocated=True),
            model("no-gpu-here", "UNAVAILABLE", reason="vllm is not installed"),
            history={"a": quiet},
            nodes=[node(("a", "RUNNING"))],
            experiments=[{"name": "e", "sample_ratio": {"ok": True}}],
            events=[event("lost", "a", ago_s=60), event("recovered", "a", ago_s=50)],
        )
        == []
    )


def test_what_is_wrong_is_told_with_its_reason_the_worst_first() -> None:
    failing = [{"rate": 0.0, "ms": 1.0, "failed": 9.0}] * 3 + [
        {"rate": 3.0, "ms": 1.0, "failed": 1.0}
    ] * 5

    found = wrongs(
        model("a", replicas=2),
        model("b", "LOADING", reason="its replica starts"),
        history={"a": failing},
        nodes=[node(("a", "RUNNING"), ("b", "STARTING"))],
        experiments=[{"name": "e", "sample_ratio": {"ok": False}}],
        events=[
            event("lost", "a", ago_s=700),
            event("lost", "b", ago_s=120),
            *(event(kind, "c", ago_s=90) for kind in ("lost", "recovered") * 3),
        ],
    )

    assert found == [
        "b: LOADING, its replica starts",
        "a: 1.0 of 4.0 requests/s fail",
        "b: replica r1 on n1 is STARTING",
        "a: 1 of 2 replicas run",
        "e: the sample ratio is off, no verdict counts",
        "b: lost 2 min ago, SIGKILL",
        "c: lost 3 times in ten minutes and back, last: SIGKILL",
    ]
