"""Keys that come and go, quotas, and what a refusal looks like: real sockets, no Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import grpc
import httpx
import orjson
import pytest

from actors.access.callers import ASKING, Asking, Callers, callers_of
from actors.access.key_file import WatchedKeys
from actors.delivery.transport import Transport
from actors.delivery.withdrawals import Withdrawals
from actors.listeners import compression
from cluster.access.keys import Caller
from cluster.config.security.api_keys import ApiKey
from cluster.config.server import ServerConfig
from cluster.errors import ConfigError, RateLimited, Unauthorized
from cluster.protocols.envelope import Call, Reply
from cluster.protocols.grpc_schema import SERVICE, message_class
from cluster.requests import InferenceRequest
from cluster.routing.table import VariantRoute
from tests.actors.access.keyed import (
    ANSWER_TOKENS,
    ENTRIES,
    PROMPT_TOKENS,
    YESTERDAY,
    bearer,
    channel_to,
    entry,
    key,
    keyed_door,
    listening,
    write_keys,
)
from tests.actors.access.test_matrix import infer_request
from tests.actors.listeners.doors import body_of, simple_body

INFER = "/v2/models/simple/infer"
SLOW = {"requests_per_s": 0.01}
"""One request, and then none for a hundred seconds."""


async def test_a_refusal_has_the_protocol_s_shape_and_the_right_headers(tmp_path: Path) -> None:
    entries = (*ENTRIES, entry("slow", "infer", **SLOW))
    async with (
        listening(tmp_path, entries) as door,
        httpx.AsyncClient(base_url=door.http) as client,
    ):
        nobody = await client.post(INFER, content=simple_body())
        other = await client.post(INFER, content=simple_body(), headers=bearer("other"))
        chat = {"model": "lm", "prompt": "a"}
        openai = await client.post("/v1/completions", json=chat, headers={"x-request-id": "mine"})
        openai_other = await client.post("/v1/completions", json=chat, headers=bearer("other"))
        first = await client.post("/tokenize", json=chat, headers=bearer("slow"))
        late = await client.post("/tokenize", json=chat, headers=bearer("slow"))

    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"] == 'Bearer realm="squadron"'
    assert nobody.json() == {
        "error": "an API key is needed: send it as 'Authorization: Bearer KEY'"
    }
    assert (other.status_code, "www-authenticate" in other.headers) == (403, False)
    assert other.json() == {"error": "the API key is not for model 'simple'"}
    assert (openai.status_code, openai.headers["x-request-id"]) == (401, "mine")
    assert openai.json()["error"]["type"] == "authentication_error"
    assert openai_other.status_code == 403
    assert openai_other.json()["error"]["type"] == "permission_error"
    assert first.status_code == 200
    assert late.status_code == 429
    assert 90 <= int(late.headers["retry-after"]) <= 100
    assert late.json()["error"]["type"] == "rate_limit_error"


async def test_keys_are_taken_and_revoked_without_a_restart(tmp_path: Path) -> None:
    async with (
        listening(tmp_path) as door,
        channel_to(door.grpc) as channel,
        httpx.AsyncClient(base_url=door.http) as client,
    ):

        async def allowed(name: str) -> tuple[int, grpc.StatusCode]:
            reply = await client.post(INFER, content=simple_body(), headers=bearer(name))
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            try:
                await call(infer_request(), metadata=tuple(bearer(name).items()))
            except grpc.aio.AioRpcError as error:
                return reply.status_code, error.code()
            return reply.status_code, grpc.StatusCode.OK

        good, bad = (200, grpc.StatusCode.OK), (401, grpc.StatusCode.UNAUTHENTICATED)
        assert (await allowed("own"), await allowed("new")) == (good, bad)
        write_keys(tmp_path / "keys.json", entry("new", "infer"))
        assert (await allowed("own"), await allowed("new")) == (bad, good)
        write_keys(tmp_path / "keys.json")
        assert (await allowed("own"), await allowed("new")) == (bad, bad)


def test_a_file_that_breaks_leaves_the_last_good_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, entry("own", "infer"))
    keys = Callers(WatchedKeys(file, look_every_s=0), tmp_path)
    file.write_text('{"keys": [')

    assert keys.caller(bearer("own")["authorization"]).key.name == "own"
    assert "the API keys stay as they were" in caplog.text
    file.unlink()
    assert keys.caller(bearer("own")["authorization"]).key.name == "own"
    write_keys(file, entry("new", "infer"))
    with pytest.raises(Unauthorized):
        keys.caller(bearer("own")["authorization"])


def test_a_server_whose_keys_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    server = ServerConfig(api_keys=str(tmp_path / "none.json"))

    with pytest.raises(ConfigError, match=r"server\.api_keys: .*none\.json: no such file"):
        callers_of(server, tmp_path)


async def test_the_quick_way_asks_for_the_key_too_and_counts_each_request_once(
    tmp_path: Path,
) -> None:
    entries = (*ENTRIES, entry("two", "infer", requests_per_s=2))
    async with (
        listening(tmp_path, entries) as door,
        httpx.AsyncClient(base_url=door.http) as client,
    ):
        begun: list[bool] = []
        begin = door.door.routes._begin

        def watched(*given: object) -> object:
            found = begin(*given)  # type: ignore[arg-type]
            begun.append(found is not None)
            return found

        door.door.routes._begin = watched  # type: ignore[method-assign, assignment]
        codes = [
            (await client.post(INFER, content=simple_body(), headers=bearer(name))).status_code
            for name in ("own", "own", "other", "two", "two")
        ]
        # A busy machine may take so long that the quota has one more meanwhile.
        refused = [
            (await client.post(INFER, content=simple_body(), headers=bearer("two"))).status_code
            for _ in range(10)
        ]
        # Binary outputs take the way with a task: one request, refused the quick way and counted
        # once all the same.
        write_keys(tmp_path / "keys.json", entry("once", "infer", **SLOW))
        odd = simple_body(outputs=[{"name": "OUTPUT0", "parameters": {"classification": 1}}])
        last = [
            (await client.post(INFER, content=odd, headers=bearer("once"))).status_code
            for _ in range(2)
        ]

    assert codes == [200, 200, 403, 200, 200]
    assert 429 in refused
    assert True in begun
    assert last == [200, 429]


def test_the_doors_of_a_node_count_together_and_nodes_share(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", entry("four", "infer", requests_per_s=4))
    keys = WatchedKeys(tmp_path / "keys.json")
    doors = [Callers(keys, tmp_path / "quotas", num_nodes=2) for _ in range(2)]
    caller = keys.ring()._callers[entry("four", "infer").id]

    doors[0].charge_request(caller)
    doors[1].charge_request(caller)

    for door in doors:
        with pytest.raises(RateLimited, match="4 requests a second"):
            door.charge_request(caller)


async def test_each_request_of_a_stream_counts_and_the_stream_goes_on(tmp_path: Path) -> None:
    response = message_class("inference.ModelStreamInferResponse")
    entries = (*ENTRIES, entry("one", "infer", **SLOW))
    async with listening(tmp_path, entries) as door, channel_to(door.grpc) as channel:
        call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
            iter([infer_request()] * 3), metadata=tuple(bearer("one").items())
        )
        errors = [response.FromString(data).error_message async for data in call]

    assert errors[0] == ""
    assert ["1e-02" in each or "0.01 requests a second" in each for each in errors] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("then", ["revoked", "expired", "replaced", "other models"])
async def test_a_stream_that_is_open_ends_with_its_key(tmp_path: Path, then: str) -> None:
    response = message_class("inference.ModelStreamInferResponse")
    was = entry("own", "infer")
    become: dict[str, tuple[ApiKey, ...]] = {
        "revoked": (),
        "expired": (entry("own", "infer", expires=YESTERDAY),),
        "replaced": (was.model_copy(update={"sha256": entry("new", "infer").sha256}),),
        "other models": (entry("own", "infer:shout"),),
    }
    async with listening(tmp_path, (was,)) as door, channel_to(door.grpc) as channel:
        call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
            metadata=tuple(bearer("own").items())
        )
        errors = []
        for state in ((was,), become[then], (was,)):
            write_keys(tmp_path / "keys.json", *state)
            await call.write(infer_request())
            errors.append(response.FromString(await call.read()).error_message)
        await call.done_writing()

    said = {"expired": "has expired", "other models": "is not for model 'simple'"}
    assert errors[0] == ""
    assert said.get(then, "is not valid") in errors[1]
    assert errors[2] == ""


async def test_tokens_are_counted_as_the_model_counts_them(tmp_path: Path) -> None:
    used = PROMPT_TOKENS + ANSWER_TOKENS
    # What comes back with time while this runs is less than ten tokens.
    poor = entry("poor", "infer", tokens_per_minute=600)
    door = keyed_door(tmp_path, (poor,))
    callers = door.front.callers
    assert callers is not None
    body = {"model": "lm", "prompt": "a", "max_tokens": 100}

    async def left(**more: object) -> float:
        reply = await door.ask("POST", "/v1/completions", {**body, **more}, **bearer("poor"))
        assert (reply.status, body_of(reply)) == (200, b"ab" if more else b"a")
        _, tokens = callers._ledger.of(poor.id).read()
        assert tokens is not None
        return tokens.level

    whole, streamed = await left(), await left(stream=True)

    assert 600 - used <= whole < 600 - used + 10
    assert 600 - used - (used + 1) <= streamed < 600 - used - (used + 1) + 10


async def test_a_request_that_failed_used_no_tokens(tmp_path: Path) -> None:
    poor = entry("poor", "infer", tokens_per_minute=600)
    door = keyed_door(tmp_path, (poor,))
    given = {"text_input": "a", "fail": True}

    refused = await door.ask("POST", "/v2/models/lm/generate_stream", given, **bearer("poor"))

    callers = door.front.callers
    assert callers is not None
    assert refused.status == 400
    _, tokens = callers._ledger.of(poor.id).read()
    assert tokens is not None
    assert tokens.level == 600


async def test_a_key_without_tokens_is_refused_and_others_are_not(tmp_path: Path) -> None:
    entries = (entry("poor", "infer", tokens_per_minute=6), entry("rich", "infer"))
    door = keyed_door(tmp_path, entries)
    body = {"model": "lm", "prompt": "a"}
    simple = orjson.loads(simple_body())

    found = [
        (await door.ask("POST", path, sent, **bearer(name))).status
        for path, sent, name in (
            ("/v1/completions", body, "poor"),
            ("/v1/completions", body, "poor"),
            ("/v2/models/lm/generate_stream", {"text_input": "a"}, "poor"),
            ("/v1/completions", body, "rich"),
            (INFER, simple, "poor"),
        )
    ]

    assert found == [200, 429, 429, 200, 200]


async def test_a_request_of_nobody_reaches_no_model(tmp_path: Path) -> None:
    """Also where a route forgot to ask."""
    front = keyed_door(tmp_path).front
    request = InferenceRequest(model="simple", inputs=())

    with pytest.raises(Unauthorized):
        await front.infer(request)
    with pytest.raises(Unauthorized):
        await anext(front.stream(request))
    with pytest.raises(Unauthorized):
        front.begin(request, 1, lambda outcome: None)


async def test_callers_at_once_are_not_taken_for_each_other(tmp_path: Path) -> None:
    names = ["own", "other", "admin", "scraper"] * 25
    async with (
        listening(tmp_path) as door,
        httpx.AsyncClient(base_url=door.http) as client,
    ):
        replies = await asyncio.gather(
            *(client.post(INFER, content=simple_body(), headers=bearer(name)) for name in names)
        )

    expected = {"own": 200, "other": 403, "admin": 200, "scraper": 403}
    assert [reply.status_code for reply in replies] == [expected[name] for name in names]
    assert ASKING.get() is None


async def test_a_probe_without_a_key_learns_no_names(tmp_path: Path) -> None:
    door = keyed_door(tmp_path)
    door.front.is_draining = True

    for path in ("/v2/health/ready", "/health"):
        reply = await door.ask("GET", path)
        assert reply.status == 503
        assert b"drain" not in body_of(reply)
        assert b"not ready" in body_of(reply)


async def test_a_body_is_expanded_for_callers_with_a_key_only(tmp_path: Path) -> None:
    import gzip

    door = keyed_door(tmp_path)
    packed = gzip.compress(simple_body())

    async def status(name: str, body: bytes) -> int:
        headers = bearer(name) if name else {}
        return (await door.ask("POST", INFER, body, content_encoding="gzip", **headers)).status

    assert await status("own", packed) == 200
    assert await status("own", b"no gzip") == 400
    assert await status("", b"no gzip") == 401


async def test_a_message_over_grpc_is_expanded_for_callers_with_a_key_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expanded = []

    async def expand(body: bytes, coding: str, limit: int) -> bytes:
        expanded.append(len(body))
        return await compression.expand(body, coding, limit)

    monkeypatch.setattr("actors.listeners.grpc.compression.expand", expand)
    # A field that nobody knows, so that it is worth compressing.
    padding = b"\x7a\xa0\x1f" + b"y" * 4000
    ready = message_class("inference.ModelReadyRequest")(name="simple").SerializeToString()
    asked = {"ModelInfer": infer_request(), "ModelReady": ready, "RepositoryModelUnload": b""}
    codes = {}
    async with listening(tmp_path) as door, channel_to(door.grpc) as channel:
        for name, message in asked.items():
            call = channel.unary_unary(f"/{SERVICE}/{name}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(message + padding, compression=grpc.Compression.Gzip)
            codes[name] = caught.value.code()
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream([infer_request() + padding], compression=grpc.Compression.Gzip).read()
        of_nobody = list(expanded)
        for name in ("ModelInfer", "ModelReady"):
            call = channel.unary_unary(f"/{SERVICE}/{name}")
            metadata = tuple(bearer("own").items())
            await call(asked[name] + padding, metadata=metadata, compression=grpc.Compression.Gzip)

    assert {*codes.values(), caught.value.code()} == {grpc.StatusCode.UNAUTHENTICATED}
    assert of_nobody == []
    assert len(expanded) == 2


async def test_no_key_is_found_in_logs_metrics_or_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = ""
    async with (
        listening(tmp_path) as door,
        channel_to(door.grpc) as channel,
        httpx.AsyncClient(base_url=door.http) as client,
    ):
        for name in ("own", "other", "expired", "nobody", "admin"):
            for path in (INFER, "/v1/completions", "/admin/v1/models"):
                reply = await client.post(path, content=simple_body(), headers=bearer(name))
                said += f"{reply.headers} {reply.text}"
            try:
                metadata = tuple(bearer(name).items())
                await channel.unary_unary(f"/{SERVICE}/ServerMetadata")(b"", metadata=metadata)
            except grpc.aio.AioRpcError as error:
                said += f"{error.details()}"
        said += (await client.get(door.metrics, headers=bearer("scraper"))).text

    ours = [each for each in caplog.records if each.name.startswith("squadron")]
    logged = " ".join(record.getMessage() for record in ours)
    for name in ("own", "other", "expired", "nobody", "admin", "scraper"):
        assert key(name) not in said + logged
        assert f"secret-of-{name}" not in said + logged
    assert "squadron_" in said


async def test_what_changes_the_server_is_written_down_with_whose_key_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path) as door, httpx.AsyncClient(base_url=door.http) as client:
        for name in ("admin", "own"):
            for path in ("/v2/logging", "/admin/v1/models", "/v2/health/ready"):
                await client.get(path, headers=bearer(name))
            await client.post("/v2/logging", json={}, headers=bearer(name))
        async with channel_to(door.grpc) as channel:
            call = channel.unary_unary(f"/{SERVICE}/LogSettings")
            await call(b"", metadata=tuple(bearer("admin").items()))

    told = [each.getMessage() for each in caplog.records if each.name == "squadron.audit"]
    who = f"by key {entry('admin', 'admin').id} ('admin')"
    assert told == [f"'POST /v2/logging' {who}", f"'LogSettings' {who}"]


async def test_names_that_nobody_configured_become_no_label(tmp_path: Path) -> None:
    door = keyed_door(tmp_path)

    for number in range(20):
        path = f"/v2/models/made-up-{number}/infer"
        assert (await door.ask("POST", path, simple_body(), **bearer("every"))).status == 404
    metrics = body_of(await door.ask("GET", "/metrics", **bearer("scraper")))

    assert b"squadron_" in metrics
    assert b"made-up" not in metrics


async def test_who_is_denied_and_why_is_counted_by_the_key_s_name(tmp_path: Path) -> None:
    """Over both transports, at the routes, in streams and where the body names the model."""
    late = entry("late", "infer", expires=YESTERDAY)
    entries = (*ENTRIES, entry("slow", "infer", **SLOW), late)
    async with (
        listening(tmp_path, entries) as door,
        httpx.AsyncClient(base_url=door.http) as client,
        channel_to(door.grpc) as channel,
    ):
        for who in ("made-up-1", "made-up-2", "late", "other", "slow", "slow", "every"):
            await client.post(INFER, content=simple_body(), headers=bearer(who))
        await client.post(INFER, content=simple_body())
        await client.post(
            "/v1/completions", json={"model": "lm", "prompt": "a"}, headers=bearer("other")
        )
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        for who in ("made-up-3", "other"):
            with pytest.raises(grpc.aio.AioRpcError):
                await call(infer_request(), metadata=tuple(bearer(who).items()))
        page = (await client.get(door.metrics, headers=bearer("scraper"))).text

    lines = [each for each in page.splitlines() if each.startswith("squadron_door_denied_total")]
    assert {line.partition("{")[2] for line in lines} == {
        'key="",reason="unauthorized"} 4.0',
        'key="late",reason="unauthorized"} 1.0',
        'key="other",reason="forbidden"} 3.0',
        'key="slow",reason="rate_limited"} 1.0',
    }


def test_a_caller_says_nothing_of_its_secret() -> None:
    shown = repr(Asking(caller=Caller(key=entry("own", "infer"))))

    assert entry("own", "infer").sha256 not in shown


def test_the_keys_are_json_that_others_can_write(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(orjson.dumps({"keys": []}))

    with pytest.raises(Unauthorized):
        Callers(WatchedKeys(file), tmp_path).caller(bearer("own")["authorization"])


async def test_a_tenant_is_the_key_s_owner_whatever_the_caller_says(tmp_path: Path) -> None:
    tenants: list[str] = []
    said = {"x-squadron-tenant": "other"}
    odd = simple_body(outputs=[{"name": "OUTPUT0", "parameters": {"classification": 1}}])
    async with listening(tmp_path) as door:
        dispatchers = door.door.front._dispatchers
        make = dispatchers._make_transport

        def noting(route: VariantRoute) -> Transport:
            transport = make(route)

            class Noting:
                async def send(self, calls: Sequence[Call], gone: Withdrawals) -> list[Reply]:
                    tenants.extend(call.tenant for call in calls)
                    found = transport.send(calls, gone)
                    return found if isinstance(found, list) else await found

            return Noting()

        dispatchers._make_transport = noting
        async with httpx.AsyncClient(base_url=door.http) as client:
            # The quick way twice, the longer one, and gRPC's two.
            for name, body in (("own", simple_body()), ("every", simple_body()), ("own", odd)):
                reply = await client.post(INFER, content=body, headers=bearer(name) | said)
                assert reply.status_code == 200
        metadata = tuple((bearer("every") | said).items())
        async with channel_to(door.grpc) as channel:
            await channel.unary_unary(f"/{SERVICE}/ModelInfer")(infer_request(), metadata=metadata)
            stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
            assert len([each async for each in stream(iter([infer_request()]), metadata=metadata)])

    assert tenants == ["own", "every", "own", "every", "every"]
