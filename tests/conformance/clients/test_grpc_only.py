"""What Triton's gRPC examples do beyond inference by the ready-made client."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.conformance.clients.asking import A, B, check_simple, client, pair
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]


def asked(model: str, datatype: str, field: str, first: Any, second: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, data in (("INPUT0", first), ("INPUT1", second)):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[1, 16])
        getattr(tensor.contents, field).extend(data)
    return request


def call(server: Running, request: Any) -> Any:
    with grpc.insecure_channel(server.grpc) as channel:
        return service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)


@pytest.mark.parametrize(
    ("model", "datatype", "dtype"),
    [("simple", "INT32", np.int32), ("simple_int8", "INT8", np.int8)],
)
def test_explicit_numbers(triton_models: Running, model: str, datatype: str, dtype: Any) -> None:
    request = asked(model, datatype, "int_contents", range(16), [1] * 16)

    answer = call(triton_models, request)

    total = np.frombuffer(answer.raw_output_contents[0], dtype)
    assert total.tolist() == [i + 1 for i in range(16)]


def test_explicit_text(triton_models: Running) -> None:
    numbers = [str(i).encode() for i in range(16)]
    request = asked("simple_string", "BYTES", "bytes_contents", numbers, [b"1"] * 16)

    answer = call(triton_models, request)

    assert answer.raw_output_contents[1].endswith(b"\x02\0\0\x0014")


def test_raw_and_typed_contents_together_are_refused_in_tritons_words(
    triton_models: Running,
) -> None:
    request = asked("simple", "INT32", "int_contents", range(16), [1] * 16)
    request.raw_input_contents.extend([A.tobytes(), B.tobytes()])

    with pytest.raises(grpc.RpcError) as caught:
        call(triton_models, request)

    assert (
        "contents field must not be specified when using raw_input_contents for 'INPUT0' for "
        "model 'simple'" in caught.value.details()
    )


def test_keep_alive_pings_are_borne(triton_models: Running) -> None:
    options = grpc_client.KeepAliveOptions(
        keepalive_time_ms=100,
        keepalive_timeout_ms=1000,
        keepalive_permit_without_calls=True,
        http2_max_pings_without_data=0,
    )
    with client(triton_models, "grpc", keepalive_options=options) as asking:
        check_simple(asking.infer("simple", pair(grpc_client)))
        # Ten pings' time; a server that minds them sends GOAWAY "too_many_pings".
        threading.Event().wait(1.0)
        check_simple(asking.infer("simple", pair(grpc_client)))


def test_channel_arguments_of_the_callers_own(triton_models: Running) -> None:
    arguments = [("grpc.primary_user_agent", "mine"), ("grpc.max_receive_message_length", 2**20)]
    with client(triton_models, "grpc", channel_args=arguments) as asking:
        check_simple(asking.infer("simple", pair(grpc_client)))


def test_a_call_may_be_cancelled(triton_models: Running) -> None:
    done = threading.Event()
    outcome: list[Any] = []

    def keep(result: Any, error: Any) -> None:
        outcome.append(error if error is not None else result)
        done.set()

    with client(triton_models, "grpc") as asking:
        asking.async_infer("simple", pair(grpc_client), callback=keep).cancel()
        assert done.wait(30)
        assert isinstance(outcome[0], grpc_client.InferResult) or "ancel" in str(outcome[0])
        check_simple(asking.infer("simple", pair(grpc_client)))


def test_a_timeout_of_the_client_is_kept(triton_models: Running) -> None:
    with client(triton_models, "grpc") as asking:
        with pytest.raises(InferenceServerException, match=r"(?i)deadline.exceeded"):
            asking.infer("simple", pair(grpc_client), client_timeout=0)
        check_simple(asking.infer("simple", pair(grpc_client), client_timeout=30))


def test_the_stream_gives_every_answer_its_id_and_goes_on_after_an_error(
    triton_models: Running,
) -> None:
    answers: list[tuple[Any, Any]] = []
    with client(triton_models, "grpc") as asking:
        asking.start_stream(lambda result, error: answers.append((result, error)))
        for number, model in enumerate(("simple", "wrong_model_name", "simple")):
            asking.async_stream_infer(model, pair(grpc_client), request_id=str(number))
        asking.stop_stream()

    assert [error is None for _, error in answers] == [True, False, True]
    assert [answers[i][0].get_response().id for i in (0, 2)] == ["0", "2"]
    check_simple(answers[2][0])


def test_health_service_and_reflection_answer(triton_models: Running) -> None:
    check = "/grpc.health.v1.Health/Check"
    with grpc.insecure_channel(triton_models.grpc) as channel:
        whole = channel.unary_unary(check)(b"", timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(check)(b"\x0a\x07nothing", timeout=30)

    assert whole == b"\x08\x01"
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
