"""What the console draws of autoscaling, by its own code, of what the policy's actor tells."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import deque
from pathlib import Path

import orjson
import pytest

from actors.autoscaling.control import AutoscalingControl
from cluster.control.autoscaling.load import Scaling
from cluster.observability.metrics import make_metrics
from tests.actors.console.test_routes import PAGE

NODE = shutil.which("node")


def scaling(variant: str, before: int, after: int) -> Scaling:
    return Scaling(variant=variant, at_s=0.0, num_before=before, num_replicas=after, reason="why")


@pytest.mark.skipif(NODE is None, reason="no JavaScript here: Debian's package `nodejs` has it")
def test_a_timeline_ends_with_what_is_wanted_and_holds_each_change_once(tmp_path: Path) -> None:
    control = AutoscalingControl(make_metrics(tmp_path / "metrics").autoscaling)
    control._latest = {"v": scaling("v", 5, 5), "w": scaling("w", 1, 1)}
    now_s = control.decisions()[0]["at_s"]
    assert isinstance(now_s, float)
    changes = [
        (now_s - 9000, scaling("v", 9, 1)),
        (now_s - 1800, scaling("v", 1, 3)),
        (now_s - 1000, scaling("gone", 1, 2)),
        (now_s - 900, scaling("v", 3, 5)),
    ]
    control._changes = deque(changes)

    drawn = timelines(control.decisions())

    assert [each["variant"] for each in drawn] == ["v", "w"]
    v, w = ([point["target"] for point in each["points"]] for each in drawn)
    assert v == [1, 1, 3, 3, 5, 5]
    assert w == [1, 1]
    ages_s = [round(now_s - point["at_s"]) for point in drawn[0]["points"]]
    assert ages_s == [3600, 1800, 1800, 900, 900, 0]


def timelines(decisions: object) -> list[dict[str, list[dict[str, float]]]]:
    page = (PAGE / "console.js").read_text()
    found = re.search(r"^function timelines.*?^}", page, re.MULTILINE | re.DOTALL)
    hour = re.search(r"^const HOUR_S = .*$", page, re.MULTILINE)
    assert found is not None
    assert hour is not None
    ask = f"{hour[0]}\n{found[0]}\nconst given = {orjson.dumps(decisions).decode()};"
    done = subprocess.run(
        [str(NODE), "-e", f"{ask}\nconsole.log(JSON.stringify(timelines(given)))"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    answer: list[dict[str, list[dict[str, float]]]] = orjson.loads(done.stdout)
    return answer
