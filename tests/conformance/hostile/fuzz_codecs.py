"""A fuzzer's program, run in atheris' own environment: `fuzz_codecs.py TARGET CORPUS [-option=…]`.

Whatever bytes come, a codec gives a request or refuses with its own kind of error; the quick codec
says what the whole one says, or nothing. Everything else stops the fuzzer with a crash.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import atheris

with atheris.instrument_imports(include=["cluster"]):
    from cluster.errors import SquadronError
    from cluster.protocols import envelope, v2_grpc, v2_json
    from cluster.protocols.v2_check import check_request
    from cluster.protocols.v2_quick import QuickDecoder
    from cluster.requests import InferenceRequest
    from cluster.tensors import Datatype, Signature, Tensor, TensorSpec

DATATYPES: tuple[Datatype, ...] = ("INT32", "FP32", "BYTES")
SIGNATURES = tuple(
    Signature(
        inputs=tuple(TensorSpec(name=f"INPUT{i}", datatype=kind, shape=(-1, 16)) for i in (0, 1)),
        outputs=(TensorSpec(name="OUTPUT0", datatype=kind, shape=(-1, 16)),),
    )
    for kind in DATATYPES
)
QUICK = tuple(
    QuickDecoder("simple", each, is_batched=True, max_batch_size=8) for each in SIGNATURES
)


def _split(data: bytes) -> tuple[bytes, int | None]:
    """The body behind the first two bytes, which are the JSON's length; 65535: no header."""
    length = int.from_bytes(data[:2], "little")
    return data[2:], None if length == 65535 else length


def _refused_or_read(read: Callable[[], object]) -> None:
    try:
        read()
    except SquadronError as error:
        assert error.message  # noqa: PT017
        assert 400 <= error.http_status < 500 or error.http_status == 501, error  # noqa: PT017


def json_and_binary(data: bytes) -> None:
    body, length = _split(data)
    _refused_or_read(
        lambda: v2_json.decode_infer(body, json_length=length, model="simple", version="")
    )


def raw_body(data: bytes) -> None:
    for signature in SIGNATURES:
        one = Signature(inputs=signature.inputs[:1], outputs=signature.outputs)
        _refused_or_read(lambda one=one: v2_json.decode_raw(data, "simple", "", one))  # type: ignore[misc]


def quick_and_whole(data: bytes) -> None:
    body, length = _split(data)
    for signature, quick in zip(SIGNATURES, QUICK, strict=True):
        found = quick.decode(body, length, "1")
        if found is None:
            continue
        request = v2_json.decode_infer(body, json_length=length, model="simple", version="1")
        rows = check_request(request, signature, max_batch_size=8, is_batched=True)
        assert (_facts(found[0]), found[1]) == (_facts(request), rows)


def _facts(request: InferenceRequest) -> object:
    return [(each.name, each.shape, _elements(each)) for each in request.inputs]


def _elements(tensor: Tensor) -> object:
    """Bit for bit, so that NaN is NaN."""
    return tensor.array.tolist() if tensor.datatype == "BYTES" else tensor.array.tobytes()


def grpc_message(data: bytes) -> None:
    _refused_or_read(lambda: v2_grpc.decode_infer(data))


def envelopes(data: bytes) -> None:
    for decode in (envelope.decode_calls, envelope.decode_replies):
        try:
            decode(data)
        except ValueError as error:
            assert str(error)  # noqa: PT017


TARGETS = {
    each.__name__: each
    for each in (json_and_binary, raw_body, quick_and_whole, grpc_message, envelopes)
}

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
