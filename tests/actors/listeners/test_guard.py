from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from actors.listeners.guard import check_peer
from cluster.errors import Forbidden
from cluster.protocols.grpc_schema import SERVICE
from tests.actors.listeners.doors import grpc_door, make_door

LOGGING = "/v2/logging"
CHANGE = {"log_verbose_level": 0}
JSON = "application/json"


async def test_a_caller_on_this_machine_may_change_settings(tmp_path: Path) -> None:
    door = make_door(tmp_path)

    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert await door.json("POST", LOGGING, CHANGE, host=host, content_type=JSON)
    # The public clients name no type, or raw bytes'; they name no Origin either.
    assert await door.json("POST", LOGGING, CHANGE, content_type="application/octet-stream")


async def test_another_machine_may_read_and_not_change(tmp_path: Path) -> None:
    door = make_door(tmp_path)

    status, text = await door.refusal("POST", LOGGING, CHANGE, is_local=False, content_type=JSON)

    assert status == 403
    assert "loopback" in text
    assert (await door.ask("GET", LOGGING, is_local=False)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8000"},
        {"host": ""},
        {"host": "localhost.evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec_fetch_site": "cross-site"},
    ],
)
async def test_a_web_page_of_another_site_is_refused(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    door = make_door(tmp_path)

    status, _ = await door.refusal("POST", LOGGING, CHANGE, content_type=JSON, **headers)

    assert status == 403


@pytest.mark.parametrize(
    "header", ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip"]
)
async def test_what_a_proxy_on_this_machine_passes_on_is_not_local(
    tmp_path: Path, header: str
) -> None:
    named = {header: "203.0.113.7"}

    status, text = await make_door(tmp_path).refusal(
        "POST", LOGGING, CHANGE, content_type=JSON, **named
    )

    assert (status, "proxy" in text) == (403, True)


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded"])
async def test_what_a_form_can_send_is_refused(tmp_path: Path, sent: str) -> None:
    status, text = await make_door(tmp_path).refusal("POST", LOGGING, CHANGE, content_type=sent)

    assert (status, "application/json" in text) == (400, True)


async def test_a_page_of_the_door_itself_must_send_json(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    page = {"origin": "http://localhost:8000"}

    assert await door.json("POST", LOGGING, CHANGE, content_type=JSON, **page)
    assert (await door.refusal("POST", LOGGING, CHANGE, **page))[0] == 400


class Call:
    """A gRPC call's context, as far as the guard looks at it."""

    def __init__(self, peer: str, *metadata: tuple[str, str]) -> None:
        self._peer = peer
        self._metadata = metadata

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


@pytest.mark.parametrize(
    "peer", ["ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711", "ipv6:[::ffff:127.0.0.1]:1", "unix:"]
)
def test_grpc_knows_loopback_in_every_spelling(peer: str) -> None:
    check_peer(Call(peer, ("user-agent", "grpc")))


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.1:4711", "ipv6:%5B2001:db8::1%5D:1", "", "?"])
def test_grpc_refuses_other_peers(peer: str) -> None:
    with pytest.raises(Forbidden):
        check_peer(Call(peer))


@pytest.mark.parametrize(
    "header", ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"]
)
async def test_grpc_does_not_answer_what_a_proxy_on_this_machine_passes_on(
    tmp_path: Path, header: str
) -> None:
    metadata = ((header, "203.0.113.7"),)
    async with grpc_door(tmp_path, shared_memory={"enabled": True}) as (_, channel):
        ask = channel.unary_unary(f"/{SERVICE}/SystemSharedMemoryStatus")
        assert await ask(b"") == b""
        with pytest.raises(grpc.aio.AioRpcError, match="proxy") as refused:
            await ask(b"", metadata=metadata)

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded"])
async def test_a_form_with_nothing_in_it_is_refused_as_well(tmp_path: Path, sent: str) -> None:
    path = "/v2/repository/models/simple/unload"
    status, text = await make_door(tmp_path).refusal("POST", path, b"", content_type=sent)

    assert (status, "application/json" in text) == (400, True)
