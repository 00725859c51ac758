"""Experiments over real sockets: weights by push, ids and feedback, verdicts, a killed controller.

Two doors share the port, so that what holds here holds for any number of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as grpcclient

from loadtests.measured_models import truth
from tests.e2e.running import Running

pytestmark = pytest.mark.e2e


@pytest.fixture
def http(served: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.http, timeout=60) as client:
        yield client


def body(x: int = 1) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "INT32", "shape": [1, 1], "data": [x]}]}


def ask(client: httpx.Client, model: str, x: int = 1, **headers: str) -> httpx.Response:
    answer = client.post(f"/v2/models/{model}/infer", json=body(x), headers=headers)
    assert answer.status_code == 200, answer.text
    named = answer.json()["parameters"]["squadron_variant"]
    assert answer.headers["x-squadron-variant"] == named
    return answer


def shown(client: httpx.Client, name: str) -> Any:
    """As the controller says it."""
    answer = told(client, "GET", f"/admin/v1/experiments/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(client: httpx.Client, method: str, path: str, content: Any = None) -> httpx.Response:
    """A controller that is still coming back is asked again, as the 503 says; what a door remembers
    of an earlier answer (it has an `Age`) shows nothing of what was kept."""
    for _ in range(60):
        answer = client.request(method, path, json=content)
        if answer.status_code not in (503, 504) and "age" not in answer.headers:
            break
        time.sleep(float(answer.headers.get("retry-after", 1)))
    return answer


def eventually(holds: Callable[[], bool], what: str) -> None:
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"did not come true: {what}")


def can_answer(served: Running) -> bool:
    try:
        return httpx.get(f"{served.http}/v2/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def new_connections(url: str, model: str, count: int) -> Counter[str]:
    """Each on a connection of its own, so that both doors are met."""
    seen: Counter[str] = Counter()
    for number in range(count):
        with httpx.Client(base_url=url, timeout=60) as client:
            seen[ask(client, model, number).headers["x-squadron-variant"]] += 1
    return seen


def test_an_answer_tells_the_id_that_feedback_is_given_for(http: httpx.Client) -> None:
    own = ask(http, "plain", **{"x-request-id": "mine-1"})
    other = ask(http, "plain")
    alone = ask(http, "control", **{"x-request-id": "mine-2"})
    silent = ask(http, "control")

    assert own.headers["x-request-id"] == "mine-1"
    assert other.headers["x-request-id"]
    assert alone.headers["x-request-id"] == "mine-2"
    assert "x-request-id" not in silent.headers


def test_over_grpc_the_arm_and_the_id_are_told_as_well(served: Running) -> None:
    import numpy as np

    with grpcclient.InferenceServerClient(served.grpc) as client:
        given = grpcclient.InferInput("x", [1, 1], "INT32")
        given.set_data_from_numpy(np.array([[3]], np.int32))
        answer = client.infer("plain", [given], headers={"x-tier": "beta"})

    parameters = answer.get_response().parameters
    assert parameters["squadron_variant"].string_param == "equal"


def test_a_rule_on_a_header_chooses_the_arm(http: httpx.Client) -> None:
    seen = {
        ask(http, "plain", x, **{"x-tier": "beta"}).headers["x-squadron-variant"] for x in range(20)
    }

    assert seen == {"equal"}


def test_new_weights_hold_at_every_door_when_the_answer_comes(
    served: Running, http: httpx.Client
) -> None:
    for winner, loser in (("equal", "control"), ("control", "equal")):
        weights = {winner: 1, loser: 0}
        began_s = time.monotonic()
        answer = http.put("/admin/v1/experiments/plain/weights", json=weights)
        taken_s = time.monotonic() - began_s
        seen = new_connections(served.http, "plain", 30)

        assert answer.status_code == 200, answer.text
        print(f"weights at every door after {taken_s:.3f} s")
        assert seen == {winner: 30}
        traffic = http.get("/admin/v1/traffic").json()["experiments"]["plain"]
        assert traffic == {"control": weights["control"], "equal": weights["equal"]}


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"control": 1}, "missing: equal"),
        ({"control": 1, "equal": 1, "nobody": 1}, "has no arm 'nobody'; allowed: control, equal"),
        ({"control": -1, "equal": 1}, "the weight of control is -1"),
        ({"control": 0, "equal": 0}, "at least one must be above 0"),
        ({"control": "1", "equal": 1}, "the weight of control is '1'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    http: httpx.Client, weights: dict[str, Any], told: str
) -> None:
    before = shown(http, "plain")["arms"]

    answer = http.put("/admin/v1/experiments/plain/weights", json=weights)

    assert answer.status_code == 400
    assert told in answer.json()["error"]
    after = shown(http, "plain")["arms"]
    assert [arm["weight"] for arm in after] == [arm["weight"] for arm in before]


def test_an_unknown_experiment_is_not_found(http: httpx.Client) -> None:
    for method, path in (
        ("GET", ""),
        ("PUT", "/weights"),
        ("DELETE", "/weights"),
        ("POST", "/feedback"),
    ):
        answer = http.request(method, f"/admin/v1/experiments/nothing{path}", json={})
        assert answer.status_code == 404, (method, path, answer.text)
        assert "allowed: " in answer.json()["error"]


def test_users_meet_one_arm_and_a_reset_takes_the_configurations_weights(
    http: httpx.Client,
) -> None:
    answer = http.request("DELETE", "/admin/v1/experiments/plain/weights")
    assert answer.status_code == 200, answer.text
    assert [arm["weight"] for arm in answer.json()["arms"]] == [90, 10]

    met = {
        user: {
            ask(http, "plain", x, **{"x-squadron-user": f"u{user}"}).headers["x-squadron-variant"]
            for x in range(2)
        }
        for user in range(40)
    }

    assert all(len(arms) == 1 for arms in met.values())


def test_feedback_is_counted_whichever_door_it_meets_and_when_the_one_that_answered_is_gone(
    served: Running, http: httpx.Client
) -> None:
    def rated() -> int:
        return sum(arm["rated"] for arm in shown(http, "plain")["arms"])

    def rate(ids: list[str]) -> list[dict[str, int]]:
        """Each over a connection of its own, so that it meets either door."""
        path, said = f"{served.http}/admin/v1/experiments/plain/feedback", []
        for request_id in ids:
            rating = {"request_id": request_id, "value": 1}
            answer = httpx.post(path, json=rating, timeout=60)
            # 202: the controller is still coming back, and the door keeps the value for it.
            assert answer.status_code in (200, 202), answer.text
            said.append(answer.json())
        return said

    def asked(num: int) -> list[str]:
        ids = []
        for x in range(num):
            with httpx.Client(base_url=served.http, timeout=60) as client:
                ids.append(ask(client, "plain", x).headers["x-request-id"])
        return ids

    before = rated()
    early = asked(20)
    at_once = rate(asked(20))
    eventually(lambda: rated() == before + 20, "what came before its door had told is counted")
    for each in at_once:
        assert each["accepted"] == 1 == each["counted"] + each["handed_on"] + each["queued"]

    # By now each door has told of what it answered: over a second ago.
    doors = served.pids("ServeReplica:squadron:gateway")
    for victim in doors:
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: (
                len(set(served.pids("ServeReplica:squadron:gateway")) - set(doors)) > 0
                and can_answer(served)
            ),
            "another door",
        )
    (controller,) = served.pids("ray::Controller")
    os.kill(controller, signal.SIGKILL)

    late = rate([*early, early[0]])

    assert all(each["counted"] + each["queued"] == 1 for each in late[:20])
    assert late[20]["counted"] == 0
    eventually(lambda: rated() == before + 40, "what the doors kept is counted")


@pytest.mark.parametrize(
    "content",
    [
        {"request_id": "a"},
        {"request_id": 7, "value": 1},
        {"request_id": "a", "value": "x"},
        [{"request_id": "a", "value": 1, "more": 2}],
        3,
    ],
)
def test_feedback_that_is_none_is_refused(http: httpx.Client, content: Any) -> None:
    answer = http.post("/admin/v1/experiments/plain/feedback", json=content)

    assert answer.status_code == 400, answer.text


def test_mirrored_answers_are_compared_and_the_caller_gets_its_own(http: httpx.Client) -> None:
    def agreement() -> Any:
        return shown(http, "mirrored")["arms"][1]["agreement"] or {"mirrored": 0, "skipped": 0}

    def told() -> int:
        found = agreement()
        return int(found["mirrored"] + found["skipped"])

    # A copy that would take another caller's place is left out: most are on a busy machine.
    num_asked = 0
    while num_asked < 50 or (agreement()["mirrored"] < 10 and num_asked < 1000):
        answer = ask(http, "mirrored", num_asked)
        assert answer.headers["x-squadron-variant"] == "control"
        num_asked += 1

    eventually(lambda: told() >= num_asked, "every copy is compared or counted as left out")
    found = agreement()
    assert found["mirrored"] >= 10
    assert found["failed"] == 0
    # Both know 95 % of the answers, not the same ones.
    assert 0.5 < found["cosine"] <= 1


def test_the_command_line_sets_and_shows(served: Running, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("squadron")

    def run(*words: str) -> str:
        command = [str(program), *words, "--url", served.http]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def weights() -> list[float]:
        found = json.loads(run("experiment", "show", "plain", "--json"))
        return [arm["weight"] for arm in found["arms"]]

    run("traffic", "set", "plain", "control=70", "equal=30")
    assert weights() == [70, 30]
    assert "70" in run("traffic", "show")
    assert "weights were set by hand" in run("explain", "plain")
    run("experiment", "promote", "plain")
    assert weights() == [0, 1]
    run("experiment", "rollback", "plain")
    assert weights() == [1, 0]
    stopped = json.loads(run("experiments", "stop", "plain", "--json"))
    assert [arm["weight"] for arm in stopped["arms"]] == [1, 0]
    run("traffic", "reset", "plain")
    status = json.loads(run("status", "--json"))
    assert {model["name"] for model in status["models"]} >= {"plain", "control"}

    wrong = subprocess.run(
        [str(program), "traffic", "set", "plain", "nobody=1", "--url", served.http],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert wrong.returncode == 2
    assert "allowed: control, equal" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_what_an_arm_costs_is_told(http: httpx.Client) -> None:
    for weights in ({"control": 1, "equal": 0}, {"control": 0, "equal": 1}):
        http.put("/admin/v1/experiments/plain/weights", json=weights).raise_for_status()
        ask(http, "plain")
    http.request("DELETE", "/admin/v1/experiments/plain/weights").raise_for_status()

    def costs() -> list[float | None]:
        return [arm["engine_ms_per_row"] for arm in shown(http, "plain")["arms"]]

    eventually(lambda: None not in costs(), "the engines' time is known")
    # Both sleep 10 ms a row.
    assert all(10 <= cost < 100 for cost in costs() if cost is not None)


class Load:
    """Callers that ask and, where they know it, rate."""

    def __init__(self, url: str, model: str, *, rates: bool = False, callers: int = 8) -> None:
        self.statuses: Counter[int] = Counter()
        self._url, self._model, self._rates = url, model, rates
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(callers)
        self._runs = [self._pool.submit(self._run, number) for number in range(callers)]

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for run in self._runs:
            run.result(60)
        self._pool.shutdown()

    def _run(self, number: int) -> None:
        x = number * 1_000_000
        rated: list[dict[str, Any]] = []
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.is_set():
                x += 1
                answer = client.post(f"/v2/models/{self._model}/infer", json=body(x))
                self.statuses[answer.status_code] += 1
                if self._rates and answer.status_code == 200:
                    label = answer.json()["outputs"][0]["data"][0]
                    request_id = answer.headers["x-request-id"]
                    rated.append({"request_id": request_id, "value": int(label == truth(x))})
                if len(rated) == 50:
                    path = f"/admin/v1/experiments/{self._model}/feedback"
                    assert client.post(path, json=rated).status_code in (200, 202)
                    rated = []


def test_an_arm_twenty_per_cent_slower_is_rolled_back(served: Running, http: httpx.Client) -> None:
    """What a busy machine adds to every request makes that share smaller (with models of 10 ms it
    was below the 5 % that are tolerated by default, rightly), so these take long, and how many
    requests it takes is counted, not how many seconds."""
    with Load(served.http, "guarded", callers=2) as load:
        while shown(http, "guarded")["status"] != "rolled_back":
            assert load.statuses[200] < 6000, "no roll-back"
            time.sleep(0.2)

    found = shown(http, "guarded")
    assert found["verdict"] == "roll_back"
    assert "latency" in found["reason"]
    assert found["sample_ratio"]["ok"]
    assert [arm["weight"] for arm in found["arms"]] == [50, 0]
    assert set(load.statuses) == {200}
    kinds = {(e["kind"], e["subject"]) for e in http.get("/admin/v1/events").json()}
    assert ("traffic", "guarded") in kinds


def test_the_controller_is_killed_under_load_and_no_setting_is_lost(
    served: Running, http: httpx.Client
) -> None:
    def controllers() -> list[int]:
        return served.pids("ray::Controller")

    def answered(method: str, path: str = "", content: Any = None) -> Any:
        answer = told(http, method, f"/admin/v1/experiments/lasting{path}", content)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def counted() -> int:
        return sum(arm["requests"] for arm in answered("GET")["arms"])

    before = counted()
    with Load(served.http, "lasting", callers=4) as load:
        for turn in range(3):
            answered("PUT", "/weights", {"control": 10 + turn, "equal": 20 + turn})
            eventually(lambda: len(controllers()) == 1, "one controller")
            os.kill(controllers()[0], signal.SIGKILL)
            found = answered("GET")
            assert [arm["weight"] for arm in found["arms"]] == [10 + turn, 20 + turn]

    assert set(load.statuses) == {200}
    # Doors tell once a second, and what a dead controller had not confirmed is told again.
    eventually(lambda: counted() == before + load.statuses[200], "every request is counted, once")
    assert new_connections(served.http, "lasting", 5).total() == 5
