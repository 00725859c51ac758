"""Decoupled models and sequences over real sockets, with the public clients."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from tests.e2e.running import Running

pytestmark = pytest.mark.e2e


@pytest.fixture
def http(served: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.http, timeout=60) as client:
        yield client


@pytest.fixture
def triton(served: Running) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(served.grpc) as client:
        yield client


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream; each must be one `data:` line and a blank one."""
    assert text == "" or text.endswith("\n\n")
    return [json.loads(part.removeprefix("data: ")) for part in text.split("\n\n") if part]


def eventually(holds: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"did not come true: {what}")


# generate


def test_generate_answers_for_a_plain_model_with_its_fields_unwrapped(http: httpx.Client) -> None:
    answer = http.post("/v2/models/shout/generate", json={"text_input": "hello", "id": "a7"})

    assert answer.json() == {
        "id": "a7",
        "model_name": "shout",
        "model_version": "1",
        "text_output": "HELLO",
    }
    assert answer.headers["content-type"] == "application/json"


def test_generate_stream_sends_each_response_as_an_event(http: httpx.Client) -> None:
    answer = http.post(
        "/v2/models/mock_llm/versions/1/generate_stream",
        json={"PROMPT": ["hello world"], "STREAM": True, "parameters": {"REPETITION": 3}},
    )

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    told = {"model_name": "mock_llm", "model_version": "1", "TEXT": "hello world"}
    assert events(answer.text) == [told] * 3


def test_generate_wants_exactly_one_response(http: httpx.Client) -> None:
    for count in (0, 2):
        body = {"PROMPT": "hello", "STREAM": True, "REPETITION": count}
        answer = http.post("/v2/models/mock_llm/generate", json=body)
        assert answer.status_code == 400
        assert "generate expects model to produce exactly 1 response" in answer.json()["error"]

    answer = http.post("/v2/models/mock_llm/generate", json={"PROMPT": "one", "STREAM": False})
    assert answer.json()["TEXT"] == "one"


def test_the_status_belongs_to_the_first_response_later_errors_are_events(
    http: httpx.Client,
) -> None:
    body = {"PROMPT": "hi", "STREAM": True, "REPETITION": 0, "FAIL_LAST": True}
    first = http.post("/v2/models/mock_llm/generate_stream", json=body)
    later = http.post("/v2/models/mock_llm/generate_stream", json={**body, "REPETITION": 1})

    assert (first.status_code, events(first.text)) == (500, [{"error": "An Error Occurred"}])
    assert later.status_code == 200
    assert events(later.text)[1:] == [{"error": "An Error Occurred"}]


def test_a_decoupled_model_refuses_infer(http: httpx.Client, served: Running) -> None:
    tensor = {"name": "SIZE", "datatype": "INT32", "shape": [1], "data": [1]}
    answer = http.post("/v2/models/endless/infer", json={"inputs": [tensor]})

    assert answer.status_code == 501
    assert "decoupled transaction policy" in answer.json()["error"]
    config = http.get("/v2/models/endless/config").json()
    assert config["model_transaction_policy"] == {"decoupled": True}


def test_a_reader_that_disconnects_ends_the_model_at_once(
    http: httpx.Client, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    body = {"SIZE": 10, "notes": str(notes)}
    with http.stream("POST", "/v2/models/endless/generate_stream", json=body) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["COUNT"] == 0

    eventually(lambda: notes.read_text().endswith("closed"), "the generator is closed")


def test_a_reader_that_reads_nothing_bounds_what_is_made(served: Running, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    body = json.dumps({"SIZE": 1_000_000, "notes": str(notes)}).encode()
    host, port = served.http_address.split(":")
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(
            b"POST /v2/models/endless/generate_stream HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        made = 0

        def has_stopped() -> bool:
            nonlocal made
            before, made = made, len(notes.read_text()) if notes.exists() else 0
            return made == before > 0

        eventually(has_stopped, "the model makes no more")
        # 16 of the link's window, and what the sockets' buffers take.
        assert made < 64
    eventually(lambda: notes.read_text().endswith("closed"), "the generator is closed")


def test_a_replica_killed_in_mid_stream_is_one_clear_error_at_its_end(
    http: httpx.Client, served: Running
) -> None:
    found: list[dict[str, Any]] = []
    with http.stream("POST", "/v2/models/endless/generate_stream", json={"SIZE": 10}) as answer:
        for line in answer.iter_lines():
            if line:
                found.append(json.loads(line.removeprefix("data: ")))
            if len(found) == 1 and line:
                os.kill(found[0]["PID"], signal.SIGKILL)

    *responses, last = found
    assert [response["COUNT"] for response in responses] == list(range(len(responses)))
    assert list(last) == ["error"]
    assert "not complete" in last["error"]
    # Before its first response a stream goes to another replica, or waits for one.
    body = {"SIZE": 1, "stop": 2}
    again = http.post("/v2/models/endless/generate_stream", json=body)
    assert [event["COUNT"] for event in events(again.text)] == [0, 1]


def test_a_stream_ends_at_its_deadline(http: httpx.Client, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    body = {"SIZE": 10, "timeout": 300_000, "notes": str(notes)}
    answer = http.post("/v2/models/endless/generate_stream", json=body)

    *_, last = events(answer.text)
    assert "Request timeout expired" in last["error"]
    eventually(lambda: notes.read_text().endswith("closed"), "the generator is closed")


# ModelStreamInfer


Answers = "queue.Queue[tuple[Any, InferenceServerException | None]]"


def collected(client: grpcclient.InferenceServerClient, **more: Any) -> Any:
    answers: Any = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)), **more)
    return answers


def repeat_inputs(values: list[int]) -> list[grpcclient.InferInput]:
    tensors = {
        "IN": np.array(values, np.int32),
        "DELAY": np.ones(len(values), np.uint32),
        "WAIT": np.array([1], np.uint32),
    }
    types = {"IN": "INT32", "DELAY": "UINT32", "WAIT": "UINT32"}
    inputs = []
    for name, array in tensors.items():
        tensor = grpcclient.InferInput(name, list(array.shape), types[name])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def is_final(result: Any) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)


def test_decoupled_responses_of_a_stream_come_with_an_empty_last_one_for_who_asked(
    triton: grpcclient.InferenceServerClient,
) -> None:
    answers = collected(triton)
    triton.async_stream_infer(
        "repeat_int32", repeat_inputs([4, 2, 0]), request_id="r", enable_empty_final_response=True
    )
    found = [answers.get(timeout=30) for _ in range(4)]
    triton.stop_stream()

    assert [error for _, error in found] == [None] * 4
    results = [result for result, _ in found]
    assert [int(result.as_numpy("OUT")[0]) for result in results[:3]] == [4, 2, 0]
    assert [is_final(result) for result in results] == [False, False, False, True]
    assert {result.get_response().id for result in results} == {"r"}
    assert len(results[3].get_response().outputs) == 0


def test_an_error_of_one_request_leaves_a_decoupled_stream_open(
    triton: grpcclient.InferenceServerClient,
) -> None:
    answers = collected(triton)
    wrong = repeat_inputs([1, 2])[:2]
    triton.async_stream_infer("repeat_int32", wrong, request_id="bad")
    _, error = answers.get(timeout=30)
    triton.async_stream_infer("repeat_int32", repeat_inputs([7]))
    result, fine = answers.get(timeout=30)
    triton.stop_stream()

    assert "expected 3 inputs but got 2" in str(error)
    assert fine is None
    assert int(result.as_numpy("OUT")[0]) == 7


def test_model_infer_refuses_a_decoupled_model(triton: grpcclient.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="decoupled transaction policy") as caught:
        triton.infer("repeat_int32", repeat_inputs([1]))
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_a_grpc_caller_that_leaves_ends_the_model(
    triton: grpcclient.InferenceServerClient, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    size = grpcclient.InferInput("SIZE", [1], "INT32")
    size.set_data_from_numpy(np.array([1000], np.int32))
    answers = collected(triton)
    triton.async_stream_infer("endless", [size], parameters={"notes": str(notes)})
    assert answers.get(timeout=30)[1] is None
    triton.stop_stream(cancel_requests=True)

    eventually(lambda: notes.read_text().endswith("closed"), "the generator is closed")


# sequences


def number(value: int, kind: Any = grpcclient) -> Any:
    tensor = kind.InferInput("INPUT", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[value]], np.int32))
    return tensor


VALUES = [0, 11, 7, 5, 3, 2, 0, 1]


def test_the_pattern_of_tritons_sequence_script_over_a_grpc_stream(
    triton: grpcclient.InferenceServerClient,
) -> None:
    """Interleaved sequences, also one with a string id; the order within each holds."""
    answers = collected(triton)
    ids: list[int | str] = [1000, 1001, "5c2d9f0c-a7b1"]
    for index, value in enumerate(VALUES):
        for place, sequence in enumerate(ids):
            triton.async_stream_infer(
                "running_sum",
                [number(value + place)],
                request_id=f"{sequence}_{index}",
                sequence_id=sequence,
                sequence_start=index == 0,
                sequence_end=index == len(VALUES) - 1,
            )
    found: dict[str, list[int]] = {str(sequence): [] for sequence in ids}
    for _ in range(len(VALUES) * len(ids)):
        result, error = answers.get(timeout=30)
        assert error is None, error
        sequence, _, _ = result.get_response().id.rpartition("_")
        found[sequence].append(int(result.as_numpy("OUTPUT")[0][0]))
    triton.stop_stream()

    sums = {
        str(sequence): np.cumsum([value + place for value in VALUES]).tolist()
        for place, sequence in enumerate(ids)
    }
    assert found == sums


def test_control_tensors_say_start_end_ready_and_id(served: Running) -> None:
    with httpclient.InferenceServerClient(served.http_address) as client:

        def ask(model: str, value: int, **flags: Any) -> int:
            result = client.infer(model, [number(value, httpclient)], **flags)
            return int(result.as_numpy("OUTPUT")[0][0])

        direct = [
            ask("simple_sequence", 5, sequence_id=7, sequence_start=True),
            ask("simple_sequence", 5, sequence_id=7),
            ask("simple_sequence", 5, sequence_id=7, sequence_end=True),
        ]
        dyna = [
            ask("simple_dyna_sequence", 5, sequence_id=70, sequence_start=True),
            ask("simple_dyna_sequence", 5, sequence_id=70),
            ask("simple_dyna_sequence", 5, sequence_id=70, sequence_end=True),
        ]

    assert direct == [6, 5, 5]
    assert dyna == [6, 5, 75]


def test_a_sequence_must_be_started_and_the_id_7_is_not_the_text_7(served: Running) -> None:
    with httpclient.InferenceServerClient(served.http_address) as client:

        def ask(**flags: Any) -> Any:
            return client.infer("running_sum", [number(1, httpclient)], **flags)

        ask(sequence_id=7, sequence_start=True)
        with pytest.raises(InferenceServerException, match="must specify the START flag on the"):
            ask(sequence_id="7")
        assert int(ask(sequence_id=7).as_numpy("OUTPUT")[0][0]) == 2
        with pytest.raises(InferenceServerException, match="non-zero or non-empty correlation ID"):
            ask()


def test_kill_9_of_a_replica_loses_its_sequences_clearly_and_no_others(
    served: Running, triton: grpcclient.InferenceServerClient
) -> None:
    def ask(sequence: int, **flags: bool) -> int:
        result = triton.infer("running_sum", [number(1)], sequence_id=sequence, **flags)
        return int(result.as_numpy("OUTPUT")[0][0])

    ids = list(range(5000, 5016))
    assert [ask(i, sequence_start=True) for i in ids] == [1] * 16
    assert [ask(i) for i in ids] == [2] * 16

    killed, _ = served.replica_pids("running_sum")
    os.kill(killed, signal.SIGKILL)
    errors: dict[int, InferenceServerException] = {}
    for i in ids:
        try:
            assert ask(i) == 3
        except InferenceServerException as error:
            errors[i] = error

    assert 0 < len(errors) < len(ids)
    assert {error.status() for error in errors.values()} == {"StatusCode.ABORTED"}
    assert all("start it again" in error.message() for error in errors.values())
    assert [ask(i, sequence_start=True) for i in errors] == [1] * len(errors)
    assert [ask(i, sequence_end=True) for i in errors] == [2] * len(errors)


# Replicas that no socket of the node leads to, as those of another node


def take_sockets_away(served: Running, variant: str) -> None:
    for pid in served.replica_pids(variant):
        for connection in psutil.Process(pid).net_connections("unix"):
            folder = Path(connection.laddr).parent
            if folder.parent.name == "links":
                for path in [*folder.glob("*.sock"), *folder.glob("*.streams")]:
                    path.unlink()


def test_a_stream_by_serves_handle_is_whole_and_ends_with_its_reader(
    http: httpx.Client, served: Running, tmp_path: Path
) -> None:
    take_sockets_away(served, "far_endless")
    url = "/v2/models/far_endless/generate_stream"
    whole = http.post(url, json={"SIZE": 1, "stop": 5})
    assert [event["COUNT"] for event in events(whole.text)] == list(range(5))

    notes = tmp_path / "notes"
    with http.stream("POST", url, json={"SIZE": 10, "notes": str(notes)}) as answer:
        next(answer.iter_lines())
    eventually(lambda: notes.read_text().endswith("closed"), "the generator is closed")


def test_sequences_by_serves_handle_stay_on_their_replicas(
    served: Running, triton: grpcclient.InferenceServerClient
) -> None:
    take_sockets_away(served, "far_sum")
    flags = [{"sequence_start": True}, {}, {}, {"sequence_end": True}]
    found = [
        int(triton.infer("far_sum", [number(1)], sequence_id=key, **flag).as_numpy("OUTPUT").item())
        for flag in flags
        for key in range(1, 17)
    ]

    assert found == [1] * 16 + [2] * 16 + [3] * 16 + [4] * 16


def test_the_server_says_that_it_has_sequences(http: httpx.Client) -> None:
    assert {"sequence", "sequence(string_id)"} <= set(http.get("/v2").json()["extensions"])
    described = http.get("/v2/models/simple_sequence/config").json()["sequence_batching"]
    assert described["direct"] == {
        "max_queue_delay_microseconds": 0,
        "minimum_slot_utilization": 0.0,
    }
    inputs = http.get("/v2/models/simple_sequence").json()["inputs"]
    assert [tensor["name"] for tensor in inputs] == ["INPUT"]
    paths = http.get("/openapi.json").json()["paths"]
    assert "/v2/models/{model}/versions/{version}/generate_stream" in paths
