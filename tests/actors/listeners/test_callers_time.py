"""How long a caller gives its request, by gRPC deadline and by parameter, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from tritonclient.grpc import service_pb2

from cluster.protocols.envelope import Call, Reply
from cluster.tensors import bytes_array, tensor
from tests.actors.access.keyed import channel_to, listening
from tests.actors.listeners.doors import (
    SUM,
    Computing,
    grpc_door,
    make_door,
    numbers,
    simple_body,
)
from tests.actors.listeners.test_not_begun import asking

SERVICE = "/inference.GRPCInferenceService/"


class Seeing(Computing):
    """Keeps the calls that reach the replica."""

    def __init__(self) -> None:
        super().__init__(
            lambda inputs: {
                "OUTPUT0": inputs["INPUT0"] + inputs["INPUT1"],
                "OUTPUT1": inputs["INPUT0"],
            }
        )
        self.calls: list[Call] = []

    async def send(self, calls: Sequence[Call], *rest: object) -> list[Reply]:
        self.calls += calls
        return await super().send(calls, *rest)

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        self.calls.append(call)
        text = tensor("text_output", bytes_array([b"a"], (1,)))
        yield Reply(call_id=call.call_id, outputs=(text,))


def simple_request(**parameters: int) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="simple")
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    for name, array in (("INPUT0", numbers()), ("INPUT1", numbers() * 0 + 1)):
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        request.raw_input_contents.append(array.tobytes())
    data: bytes = request.SerializeToString()
    return data


async def test_the_client_s_deadline_bounds_the_work_as_its_own_timeout_does(
    tmp_path: Path,
) -> None:
    seeing = Seeing()
    limits = {"default_timeout_s": 3000}
    async with grpc_door(tmp_path, transport=seeing, limits=limits) as (_, channel):
        infer = channel.unary_unary(SERVICE + "ModelInfer")
        answer = service_pb2.ModelInferResponse.FromString(await infer(simple_request()))
        for patience_s, timeout_us in ((500, 0), (900, 3 * 10**8), (500, 9 * 10**8)):
            await infer(simple_request(timeout=timeout_us), timeout=patience_s)

    left = [call.left_s for call in seeing.calls]
    assert answer.model_name == "simple"
    # The server's own limit, the client's deadline, the parameter, the deadline: always the least.
    # (gRPC's clock is not exact.)
    assert [each < bound for each, bound in zip(left, (3001, 510, 301, 510), strict=True)] == [
        True
    ] * 4
    assert left[0] > 1000


async def test_a_timeout_and_a_priority_sent_as_json_reach_the_replica(tmp_path: Path) -> None:
    seeing = Seeing()
    sent = [{}, {"timeout": 3 * 10**8}, {"timeout": 0, "priority": 2}, {"timeout": 4 * 10**9}]
    door = make_door(tmp_path, transport=seeing, limits={"default_timeout_s": 3000})
    async with asking(tmp_path, door) as client:
        answers = [
            await client.post("/v2/models/simple/infer", content=simple_body(parameters=each))
            for each in sent
        ]

    assert [answer.json()["outputs"][0]["data"] for answer in answers] == [SUM] * 4
    assert [round(call.left_s, -1) for call in seeing.calls] == [3000, 300, 3000, 3000]
    assert [call.priority for call in seeing.calls] == [0, 0, 2, 0]


async def test_a_decoupled_model_sees_the_parameters_that_were_sent(tmp_path: Path) -> None:
    seeing = Seeing()
    request = service_pb2.ModelInferRequest(model_name="lm")
    request.parameters["top_k"].int64_param = 3
    given = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(b"hello")
    async with listening(tmp_path, ()) as door, channel_to(door.grpc) as channel:
        door.door.front._streams._make_streams = lambda route: seeing
        stream = channel.stream_stream(SERVICE + "ModelStreamInfer")
        answers = [
            service_pb2.ModelStreamInferResponse.FromString(data)
            async for data in stream(iter([request.SerializeToString()]), timeout=500)
        ]

    assert [answer.error_message for answer in answers] == [""]
    (call,) = seeing.calls
    assert call.parameters == {"top_k": 3}
    assert 0 < call.left_s <= 60
