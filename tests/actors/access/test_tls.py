"""TLS and mutual TLS on all three ports, with an authority of our own: real handshakes."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from actors.access.tls import ServerTls
from cluster.client import Client
from cluster.config.security.tls import TlsConfig
from cluster.errors import ConfigError, Forbidden, SquadronError, Unauthorized
from cluster.protocols.grpc_schema import SERVICE
from tests.actors.access.authority import Authority, serial_of
from tests.actors.access.keyed import ENTRIES, Listening, bearer, key, listening
from tests.actors.listeners.doors import SUM, simple_body

INFER = "/v2/models/simple/infer"
LARGE = {
    "inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "data": ["x" * 2_000_000]}]
}
Pair = tuple[Path, Path]


def section(pair: Pair, client_ca: Path | None = None) -> dict[str, str]:
    found = {"cert": str(pair[0]), "key": str(pair[1])}
    return {**found, "client_ca": str(client_ca)} if client_ca is not None else found


def trusting(ca: Path, own: Pair | None = None) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=str(ca))
    if own is not None:
        context.load_cert_chain(*own)
    return httpx.AsyncClient(verify=context, timeout=20)


def read(file: Path) -> bytes:
    return file.read_bytes()


async def live(address: str, ca: Path, own: Pair | None = None) -> grpc.StatusCode:
    """The status of one call over a connection of its own."""
    cert, key = map(read, own) if own is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(read(ca), key, cert)
    # Without an option of its own a channel would share the connection of the one before.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        try:
            await channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=20)
        except grpc.aio.AioRpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def serial_at(door: Listening) -> int:
    host, _, port = door.http.removeprefix("https://").partition(":")
    return serial_of(ssl.get_server_certificate((host, int(port))).encode())


async def test_all_three_ports_speak_tls_and_nothing_else(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    stranger = Authority(tmp_path / "other")
    async with listening(tmp_path / "door", (), tls=section(ca.sign("server"))) as door:
        async with trusting(ca.file) as client:
            answer = await client.post(door.http + INFER, content=simple_body())
            large = await client.post(f"{door.http}/v2/models/simple_identity/infer", json=LARGE)
            scraped = await client.get(door.metrics)
        async with trusting(stranger.file) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(door.http + "/v2")
        async with httpx.AsyncClient() as client:
            for address in (door.http, door.metrics):
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get(address.replace("https", "http"))
        ours, theirs = [await live(door.grpc, each.file) for each in (ca, stranger)]
        async with grpc.aio.insecure_channel(door.grpc) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=20)

    assert answer.json()["outputs"][0]["data"] == SUM
    assert large.json()["outputs"][0]["data"] == LARGE["inputs"][0]["data"]
    assert scraped.status_code == 200
    assert (ours, theirs) == (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)


async def test_with_a_client_authority_a_certificate_of_it_is_needed(tmp_path: Path) -> None:
    ca, clients = Authority(tmp_path / "ca"), Authority(tmp_path / "clients")
    stranger = Authority(tmp_path / "other").sign("stranger")
    tls = section(ca.sign("server"), clients.file)
    own = clients.sign("app")
    async with listening(tmp_path / "door", (), tls=tls) as door:
        async with trusting(ca.file, own) as client:
            codes = [
                (await client.get(door.http + "/v2")).status_code,
                (await client.get(door.metrics)).status_code,
            ]
        for pair in (None, stranger):
            for address in (door.http, door.metrics):
                async with trusting(ca.file, pair) as client:
                    # TLS 1.3 tells the caller after its own part of the handshake is over.
                    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                        await client.get(address)
        statuses = [await live(door.grpc, ca.file, pair) for pair in (own, None, stranger)]

    assert codes == [200, 200]
    assert statuses[0] is grpc.StatusCode.OK
    assert statuses[1:] == [grpc.StatusCode.UNAVAILABLE] * 2


async def test_a_certificate_is_no_key(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    own = ca.sign("app")
    tls = section(ca.sign("server"), ca.file)
    async with (
        listening(tmp_path / "door", ENTRIES, tls=tls) as door,
        trusting(ca.file, own) as client,
    ):
        nobody = await client.get(door.http + "/v2")
        known = await client.get(door.http + "/v2", headers=bearer("own"))

    assert (nobody.status_code, known.status_code) == (401, 200)


async def test_new_certificates_are_used_without_a_restart(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    tls = section(ca.sign("server"))
    async with listening(tmp_path / "door", (), tls=tls) as door:
        first = await _serial(door)
        async with trusting(ca.file) as client:
            assert (await client.get(door.http + "/v2")).status_code == 200
            ca.sign("server")
            second = await _serial(door)
            # The connection that stood goes on.
            assert (await client.get(door.http + "/v2")).status_code == 200
        assert await live(door.grpc, ca.file) is grpc.StatusCode.OK
        (tmp_path / "ca" / "server.pem").write_text("-----BEGIN half")
        kept = await _serial(door)
        assert await live(door.grpc, ca.file) is grpc.StatusCode.OK

    assert first != second == kept


async def test_an_authority_that_was_taken_away_lets_nobody_in(tmp_path: Path) -> None:
    ca, old, new = (Authority(tmp_path / name) for name in ("ca", "old", "new"))
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(old.file.read_bytes())
    before, after = old.sign("app"), new.sign("app")
    tls = section(ca.sign("server"), trusted)
    async with listening(tmp_path / "door", (), tls=tls) as door:

        async def allowed(pair: Pair) -> tuple[bool, grpc.StatusCode]:
            async with trusting(ca.file, pair) as client:
                try:
                    is_in = (await client.get(door.http + "/v2")).status_code == 200
                except httpx.TransportError:
                    is_in = False
            return is_in, await live(door.grpc, ca.file, pair)

        good, bad = (True, grpc.StatusCode.OK), (False, grpc.StatusCode.UNAVAILABLE)
        assert (await allowed(before), await allowed(after)) == (good, bad)
        trusted.write_bytes(new.file.read_bytes())
        assert (await allowed(before), await allowed(after)) == (bad, good)


async def test_a_handshake_that_never_ends_is_given_up(tmp_path: Path) -> None:
    tls = section(Authority(tmp_path / "ca").sign("server"))
    limits = {"header_timeout_s": 0.2}
    async with listening(tmp_path / "door", (), tls=tls, limits=limits) as door:
        host, _, port = door.http.removeprefix("https://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\x16\x03\x01")  # the first bytes of a TLS record, and no more
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_the_sdk_s_key_and_authority_are_heeded(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    tls = section(ca.sign("server"))
    rows = {name: np.arange(16, dtype=np.int32)[None] for name in ("INPUT0", "INPUT1")}
    async with listening(tmp_path / "door", ENTRIES, tls=tls) as door:

        def asked(name: str, verify: bool | str, url: str = door.http) -> list[int]:
            with Client(url, api_key=key(name), verify=verify, retries=0) as client:
                answer = client.load_model("simple").predict(rows)
                found: list[int] = answer["OUTPUT0"].ravel().tolist()
                return found

        answers = [
            await asyncio.to_thread(asked, "own", str(ca.file), url)
            for url in (door.http, f"grpcs://{door.grpc}")
        ]
        for name, verify, error in (
            ("expired", str(ca.file), Unauthorized),
            ("other", str(ca.file), Forbidden),
            ("own", True, SquadronError),
            ("own", str(tmp_path / "none.pem"), ConfigError),
            ("own", tls["key"], ConfigError),
        ):
            with pytest.raises(error):
                await asyncio.to_thread(asked, name, verify)

    assert answers == [[2 * number for number in range(16)]] * 2


async def test_old_protocol_versions_are_refused(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    found = ServerTls(TlsConfig.model_validate(section(ca.sign("server"))))

    assert found.context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_mistakes_name_the_key_and_the_file(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "ca")
    cert, key = ca.sign("server")
    other = ca.sign("other")[1]
    text = tmp_path / "text.pem"
    text.write_text("no certificate")

    def mistake(**changes: Path) -> str:
        given = {"cert": cert, "key": key, **changes}
        config = TlsConfig.model_validate({name: str(file) for name, file in given.items()})
        with pytest.raises(ConfigError) as wrong:
            ServerTls(config)
        return wrong.value.message

    assert mistake(cert=tmp_path / "none.pem").startswith("server.tls.cert: ")
    assert "KEY_VALUES_MISMATCH" in mistake(key=other)
    assert "are no certificate and its key" in mistake(cert=text)
    assert mistake(client_ca=text).startswith("server.tls.client_ca: ")


async def _serial(door: Listening) -> int:
    return await asyncio.to_thread(serial_at, door)
