"""Shared memory through a door's two transports, with the public clients' messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest

from actors.listeners.routes.table import RouteTable
from cluster.protocols.grpc_schema import METHODS, SERVICE
from cluster.requests import RegionSlice
from tests.actors.extensions.objects import Object, shared_object
from tests.actors.listeners.doors import SUM, Door, body_of, grpc_door, make_door, numbers

ENABLED = {"enabled": True, "prefixes": ("/squadron_test_",)}
SYSTEM, CUDA = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
JSON = "application/json"


def shared(region: str, byte_size: int = 64, **more: Any) -> dict[str, Any]:
    named = {"shared_memory_region": region, "shared_memory_byte_size": byte_size, **more}
    return {"parameters": named}


def asking(**output: Any) -> dict[str, Any]:
    """INPUT0 comes from region `in`, INPUT1 as JSON; `output` is what is asked of OUTPUT0."""
    tensor = {"datatype": "INT32", "shape": [1, 16]}
    return {
        "inputs": [
            {"name": "INPUT0", **tensor, **shared("in")},
            {"name": "INPUT1", **tensor, "data": [1] * 16},
        ],
        "outputs": [{"name": "OUTPUT0", **output}],
    }


async def register(door: Door, name: str, about: Object, byte_size: int = 64) -> None:
    body = {"key": about.key, "byte_size": byte_size}
    reply = await door.ask("POST", f"{SYSTEM}/region/{name}/register", body, content_type=JSON)
    assert reply.status == 200, body_of(reply)


def put_numbers(about: Object) -> None:
    about.put(numbers().tobytes())


async def test_a_tensor_goes_in_and_out_through_shared_memory(tmp_path: Path) -> None:
    door = make_door(tmp_path, shared_memory=ENABLED)
    with shared_object(64) as given, shared_object(80) as taken:
        put_numbers(given)
        await register(door, "in", given)
        await register(door, "out", taken, 80)
        asked = asking(**shared("out", shared_memory_offset=16))
        answer = await door.json("POST", "/v2/models/simple/infer", asked)

        assert np.frombuffer(taken.get(64, at=16), np.int32).tolist() == SUM
        (output,) = answer["outputs"]
        assert output == {
            "name": "OUTPUT0",
            "datatype": "INT32",
            "shape": [1, 16],
            "parameters": {
                "shared_memory_region": "out",
                "shared_memory_byte_size": 64,
                "shared_memory_offset": 16,
            },
        }
        status = await door.json("GET", f"{SYSTEM}/region/out/status")
        assert status == [{"name": "out", "key": taken.key, "offset": 0, "byte_size": 80}]


async def test_bytes_go_in_and_out_with_their_lengths(tmp_path: Path) -> None:
    door = make_door(tmp_path, shared_memory=ENABLED)
    coded = b"\x02\0\0\0hi\x03\0\0\0a\0b"
    with shared_object(64) as about:
        about.put(coded)
        await register(door, "r", about)
        size = len(coded)
        asked = {
            "inputs": [
                {"name": "INPUT0", "datatype": "BYTES", "shape": [1, 2], **shared("r", size)}
            ],
            "outputs": [{"name": "OUTPUT0", **shared("r", 40, shared_memory_offset=24)}],
        }
        answer = await door.json("POST", "/v2/models/simple_identity/infer", asked)

        assert answer["outputs"][0]["parameters"]["shared_memory_byte_size"] == size
        assert about.get(size, at=24) == coded


@pytest.mark.parametrize(
    ("output", "status", "said"),
    [
        (shared("out", 32), 400, "(32 bytes) should be at least 64 bytes to hold the results"),
        (shared("out", shared_memory_offset=2**64 - 32), 400, "Invalid offset for shared memory"),
        (shared("out", shared_memory_offset=32), 400, "Invalid offset + byte size"),
        (shared("none"), 404, "Unable to find shared memory region: 'none'"),
        ({"parameters": {"shared_memory_region": "out"}}, 400, "must be specified along with"),
        (shared("out", classification=2), 400, "excludes 'classification'"),
        (shared("out", binary_data=True), 400, "excludes 'binary_data'"),
    ],
)
async def test_an_output_that_cannot_be_put_there_is_refused(
    tmp_path: Path, output: dict[str, Any], status: int, said: str
) -> None:
    door = make_door(tmp_path, shared_memory=ENABLED)
    with shared_object(64) as given, shared_object(64) as taken:
        await register(door, "in", given)
        await register(door, "out", taken)

        refusal = await door.refusal("POST", "/v2/models/simple/infer", asking(**output))

        assert refusal[0] == status
        assert said in refusal[1]
        assert taken.get(64) == bytes(64)
        await door.ask("POST", f"{SYSTEM}/unregister", content_type=JSON)
        assert await door.json("GET", f"{SYSTEM}/status") == []


@pytest.mark.parametrize("byte_size", [60, 128])
async def test_a_tensor_of_another_size_than_its_shape_is_refused(
    tmp_path: Path, byte_size: int
) -> None:
    door = make_door(tmp_path, shared_memory=ENABLED)
    with shared_object(256) as given:
        await register(door, "in", given, 256)
        asked = asking()
        asked["inputs"][0] |= shared("in", byte_size)

        status, text = await door.refusal("POST", "/v2/models/simple/infer", asked)

    assert status == 400
    assert f"unexpected total byte size {byte_size} for input 'INPUT0', expecting 64" in text


async def test_data_and_shared_memory_exclude_each_other(tmp_path: Path) -> None:
    asked = asking()
    asked["inputs"][0]["data"] = [0] * 16

    status, text = await make_door(tmp_path, shared_memory=ENABLED).refusal(
        "POST", "/v2/models/simple/infer", asked
    )

    assert status == 400
    assert "exactly one of 'data'" in text


@pytest.mark.parametrize(
    "caller",
    [
        {"is_local": False},
        {"origin": "http://localhost:8000"},
        {"x_forwarded_for": "203.0.113.7"},
        {"forwarded": "for=203.0.113.7"},
    ],
)
async def test_only_programs_of_this_machine_use_regions(
    tmp_path: Path, caller: dict[str, Any]
) -> None:
    door = make_door(tmp_path, shared_memory=ENABLED)
    with shared_object(64) as given:
        await register(door, "in", given)

        status, text = await door.refusal("POST", "/v2/models/simple/infer", asking(), **caller)

    assert status == 403
    assert "own machine" in text


@pytest.mark.parametrize("path", ["/status", "/region/r/status"])
async def test_another_machine_does_not_see_the_regions(tmp_path: Path, path: str) -> None:
    door = make_door(tmp_path, shared_memory=ENABLED)

    status, _ = await door.refusal("GET", SYSTEM + path, is_local=False)

    assert status == 403


async def test_it_is_off_by_default(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    body = {"key": "/squadron_x", "byte_size": 8}

    for method, path in (
        ("GET", f"{SYSTEM}/status"),
        ("POST", f"{SYSTEM}/region/r/register"),
        ("POST", f"{SYSTEM}/unregister"),
        ("GET", f"{CUDA}/status"),
        ("POST", "/v2/models/simple/infer"),
    ):
        sent = asking() if path.endswith("infer") else body if method == "POST" else b""
        status, text = await door.refusal(method, path, sent, content_type=JSON)
        assert status == 501
        assert text.startswith("Client shared memory is disabled")
    assert "system_shared_memory" not in (await door.json("GET", "/v2"))["extensions"]


async def test_metadata_names_the_extension_when_it_is_on(tmp_path: Path) -> None:
    extensions = (await make_door(tmp_path, shared_memory=ENABLED).json("GET", "/v2"))["extensions"]

    assert "system_shared_memory" in extensions
    assert extensions == sorted(extensions)


async def test_without_a_gpu_cuda_regions_are_refused_with_the_reason(tmp_path: Path) -> None:
    door = make_door(tmp_path, shared_memory=ENABLED)
    body = {"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 8}
    path = f"{CUDA}/region/r/register"

    if "cuda_shared_memory" in (await door.json("GET", "/v2"))["extensions"]:
        pytest.skip("this machine has a GPU: see tests/gpu/test_cuda_shared_memory.py")
    status, text = await door.refusal("POST", path, body, content_type=JSON)

    assert status == 501
    assert "failed to register CUDA shared memory region: the server has no" in text
    assert await door.json("GET", f"{CUDA}/status") == []
    assert (await door.ask("POST", f"{CUDA}/unregister", content_type=JSON)).status == 200


async def test_the_document_describes_every_route_of_shared_memory(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    described = await door.json("GET", "/openapi.json")

    assert isinstance(door.routes.table, RouteTable)
    paths = {path for path in described["paths"] if "sharedmemory" in path}
    assert len(paths) == 10
    assert described["paths"][f"{CUDA}/region/{{name}}/register"]["post"]["requestBody"]


async def _call(channel: grpc.aio.Channel, method_name: str, /, **fields: Any) -> Any:
    method = METHODS[method_name]
    call = channel.unary_unary(f"/{SERVICE}/{method_name}")
    return method.response.FromString(await call(method.request(**fields).SerializeToString()))


async def _refused(
    channel: grpc.aio.Channel, method_name: str, /, **fields: Any
) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await _call(channel, method_name, **fields)
    return error.value.code().name, error.value.details() or ""


def _in_region(region: str, byte_size: int = 64) -> dict[str, Any]:
    return {
        "shared_memory_region": {"string_param": region},
        "shared_memory_byte_size": {"int64_param": byte_size},
    }


async def test_grpc_mixes_shared_and_raw_tensors(tmp_path: Path) -> None:
    tensor = {"datatype": "INT32", "shape": [1, 16]}
    async with grpc_door(tmp_path, shared_memory=ENABLED) as (_, channel):
        with shared_object(64) as given, shared_object(64) as taken:
            put_numbers(given)
            for name, about in (("in", given), ("out", taken)):
                await _call(
                    channel, "SystemSharedMemoryRegister", name=name, key=about.key, byte_size=64
                )
            answer = await _call(
                channel,
                "ModelInfer",
                model_name="simple",
                inputs=[
                    {"name": "INPUT0", **tensor, "parameters": _in_region("in")},
                    {"name": "INPUT1", **tensor},
                ],
                raw_input_contents=[np.ones(16, np.int32).tobytes()],
                outputs=[
                    {"name": "OUTPUT0", "parameters": _in_region("out")},
                    {"name": "OUTPUT1"},
                ],
            )
            status = await _call(channel, "SystemSharedMemoryStatus", name="out")
            await _call(channel, "SystemSharedMemoryUnregister")
            left = await _call(channel, "SystemSharedMemoryStatus")

            assert np.frombuffer(taken.get(64), np.int32).tolist() == SUM
    # Clients find a buffer by the number of its output: the shared one's is empty.
    empty, difference = answer.raw_output_contents
    assert empty == b""
    assert np.frombuffer(difference, np.int32).tolist() == [i - 1 for i in range(16)]
    assert status.regions["out"].key == taken.key
    assert not left.regions


async def test_grpc_answers_with_tritons_status_codes(tmp_path: Path) -> None:
    async with grpc_door(tmp_path, shared_memory=ENABLED) as (_, channel):
        register_call = "SystemSharedMemoryRegister"
        with shared_object(64) as about:
            fields = {"name": "r", "key": about.key, "byte_size": 64}
            await _call(channel, register_call, **fields)
            again = await _refused(channel, register_call, **fields)
            beyond = await _refused(channel, register_call, **{**fields, "byte_size": 65})
        missing = {"name": "m", "key": "/squadron_test_none", "byte_size": 64}
        gone = await _refused(channel, register_call, **missing)
        unknown = await _refused(channel, "SystemSharedMemoryStatus", name="m")
        foreign = await _refused(channel, register_call, **{**missing, "key": "/psm_1"})

    assert again == ("ALREADY_EXISTS", "shared memory region 'r' already in manager")
    assert beyond[0] == "INVALID_ARGUMENT"
    assert gone == ("INTERNAL", "Unable to open shared memory region: '/squadron_test_none'")
    assert unknown == ("NOT_FOUND", "Unable to find system shared memory region: 'm'")
    assert foreign[0] == "PERMISSION_DENIED"


async def test_grpc_refuses_while_it_is_off(tmp_path: Path) -> None:
    async with grpc_door(tmp_path) as (_, channel):
        for kind in ("System", "Cuda"):
            for verb in ("Status", "Register", "Unregister"):
                code, text = await _refused(channel, f"{kind}SharedMemory{verb}")
                assert code == "UNIMPLEMENTED"
                assert text.startswith("Client shared memory is disabled")


async def test_a_body_of_register_that_is_no_object_is_refused(tmp_path: Path) -> None:
    door = make_door(tmp_path, shared_memory=ENABLED)

    status, text = await door.refusal(
        "POST", f"{SYSTEM}/region/r/register", orjson.dumps([1]), content_type=JSON
    )

    assert (status, text) == (400, "the request JSON must be an object")


class Reads:
    """How often a door read from shared memory, and how much it holds of it."""

    def __init__(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num = 0
        memory = door.offered.shared_memory
        read = memory.read

        def counted(place: RegionSlice) -> bytes:
            self.num += 1
            return read(place)

        monkeypatch.setattr(memory, "read", counted)


def _many(names: list[str], region: str = "in") -> dict[str, Any]:
    tensor = {"datatype": "INT32", "shape": [1, 16]}
    return {"inputs": [{"name": name, **tensor, **shared(region)} for name in names]}


@pytest.mark.parametrize(
    ("names", "num_reads", "text"),
    [
        (["x0", "x1", "x2"], 0, "unexpected inference input 'x0' for model 'simple'"),
        (["INPUT0", "INPUT0", "INPUT0"], 1, "input 'INPUT0' already exists in request"),
        (["INPUT0", "INPUT1", "x"], 2, "unexpected inference input 'x' for model 'simple'"),
    ],
)
async def test_nothing_is_read_that_the_model_does_not_take(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    num_reads: int,
    text: str,
) -> None:
    tensor = {"datatype": "INT32", "shape": [1, 16]}
    inputs = [{"name": name, **tensor, "parameters": _in_region("in")} for name in names]
    async with grpc_door(tmp_path, shared_memory=ENABLED) as (door, channel):
        reads = Reads(door, monkeypatch)
        with shared_object(64) as given:
            await register(door, "in", given)
            status, said = await door.refusal("POST", "/v2/models/simple/infer", _many(names))
            over_http = reads.num
            code, said_by_grpc = await _refused(
                channel, "ModelInfer", model_name="simple", inputs=inputs
            )

    assert (status, code) == (400, "INVALID_ARGUMENT")
    assert said.startswith(text)
    assert said_by_grpc.startswith(text)
    assert (over_http, reads.num - over_http) == (num_reads, num_reads)


async def test_no_more_is_read_than_a_door_may_hold_and_it_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_body_bytes": 2000, "max_buffered_bytes": 2000}
    shape = {"datatype": "INT32", "shape": [16, 16]}
    names = ("INPUT0", "INPUT1")
    asked = {"inputs": [{"name": name, **shape, **shared("in", 1024)} for name in names]}
    part = {"inputs": [{"name": name, **shape, **shared("in", 1024)} for name in names[:1]]}
    inputs = [{"name": name, **shape, "parameters": _in_region("in", 1024)} for name in names]
    async with grpc_door(tmp_path, shared_memory=ENABLED, limits=limits) as (door, channel):
        reads = Reads(door, monkeypatch)
        with shared_object(1024) as given:
            await register(door, "in", given, 1024)
            for _ in range(3):  # what was taken for one that was refused is given back
                status, text = await door.refusal("POST", "/v2/models/simple/infer", asked)
                assert (status, "max_buffered_bytes" in text) == (413, True)
                code, text = await _refused(
                    channel, "ModelInfer", model_name="simple", inputs=inputs
                )
                assert (code, "max_buffered_bytes" in text) == ("RESOURCE_EXHAUSTED", True)
            # The first of the two fits by itself: then it is the other one that is missing.
            status, text = await door.refusal("POST", "/v2/models/simple/infer", part)

    assert (status, "missing required input(s) ['INPUT1']" in text) == (400, True)
    assert reads.num == 7
