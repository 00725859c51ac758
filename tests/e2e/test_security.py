"""One running server with keys and mutual TLS: what is closed, and where secrets are not seen."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
import yaml

from actors.listeners.http_messages import is_loopback
from cluster.protocols.grpc_schema import SERVICE
from tests.actors.access.authority import Authority
from tests.e2e.running import Running, running

pytestmark = pytest.mark.e2e

PASSWORD, SECRET = "SQUADRON_TEST_PASSWORD", "correct-horse-battery"
INFER = "/v2/models/echo/infer"
INPUT = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


class Secured:
    """A running server, its keys and a caller's certificate."""

    def __init__(self, folder: Path) -> None:
        self.keys_file = folder / "keys.json"
        self._ca = Authority(folder / "ca")
        self._server = self._ca.sign("server")
        self._app = self._ca.sign("app")
        self.keys = {
            name: self.squadron("keys", "create", name, "--scope", scope)["key"]
            for name, scope in (("app", "infer:echo"), ("other", "infer:twin"), ("boss", "admin"))
        }
        self.running: Running

    def squadron(self, *words: str, **environment: str) -> Any:
        program = Path(sys.executable).with_name("squadron")
        done = subprocess.run(
            [str(program), *words, "--json"],
            env={**os.environ, "SQUADRON_API_KEYS": str(self.keys_file), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(done.stdout)

    def config(self, dev: dict[str, Any]) -> dict[str, Any]:
        args = dev["applications"][0]["args"]
        args["variants"]["twin"] = args["variants"]["echo"]
        cert, key = map(str, self._server)
        args["server"] = {
            "api_keys": str(self.keys_file),
            "tls": {"cert": cert, "key": key, "client_ca": str(self._ca.file)},
            # Nobody listens there: what is told of a failure must not show it either.
            "state_redis": {"url": f"redis://:${{{PASSWORD}}}@127.0.0.1:9/0"},
        }
        return dev

    def client(self, *, has_certificate: bool = True) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self._ca.file))
        if has_certificate:
            context.load_cert_chain(*self._app)
        return httpx.Client(base_url=self.running.http, verify=context, timeout=30)

    def headers(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[name]}"} if name else {}

    def rpc(self, name: str) -> grpc.StatusCode:
        cert, key = (file.read_bytes() for file in self._app)
        credentials = grpc.ssl_channel_credentials(self._ca.file.read_bytes(), key, cert)
        with grpc.secure_channel(self.running.grpc, credentials) as channel:
            try:
                call = channel.unary_unary(f"/{SERVICE}/ServerMetadata")
                call(b"", metadata=tuple(self.headers(name).items()), timeout=30)
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                return code
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def secured(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    found = Secured(folder)
    file = folder / "secured.yaml"
    dev = yaml.safe_load((root / "serve_configs/dev.yaml").read_text())
    (folder / "run").mkdir()
    file.write_text(yaml.safe_dump(found.config(dev)))
    with pytest.MonkeyPatch.context() as patch:
        # With it `squadron serve` shows its own server's models while it waits.
        patch.setenv("SQUADRON_API_KEY", found.keys["boss"])
        patch.setenv(PASSWORD, SECRET)
        with running(file, folder / "run") as found.running:
            yield found


def test_each_key_opens_what_it_is_for_and_no_more(secured: Secured) -> None:
    asked = [
        ("POST", INFER, {"inputs": [INPUT]}),
        ("GET", "/v2", None),
        ("GET", "/admin/v1/models", None),
        ("POST", "/v2/repository/models/echo/unload", {}),
        ("GET", "/metrics", None),
        ("GET", "/v2/health/ready", None),
    ]
    second_door = httpx.Client(base_url=secured.running.second_door, timeout=30)
    with secured.client() as own_door, second_door:
        found = {
            name: [
                [
                    door.request(method, path, json=body, headers=secured.headers(name)).status_code
                    for method, path, body in asked
                ]
                for door in (own_door, second_door)
            ]
            for name in ("", "app", "other", "boss")
        }

    assert found[""] == [[401, 401, 401, 401, 401, 200]] * 2
    assert found["app"] == [[200, 200, 403, 403, 403, 200]] * 2
    assert found["other"] == [[403, 200, 403, 403, 403, 200]] * 2
    # Models cannot be unloaded here (`repository_control: none`), and an admin is told that.
    assert found["boss"] == [[200, 200, 200, 503, 200, 200]] * 2
    assert secured.rpc("") is grpc.StatusCode.UNAUTHENTICATED
    assert secured.rpc("app") is grpc.StatusCode.OK


def test_a_caller_without_a_certificate_gets_no_answer(secured: Secured) -> None:
    with secured.client(has_certificate=False) as client, pytest.raises(httpx.TransportError):
        client.get("/v2/health/live")


def test_keys_change_while_the_server_runs(secured: Secured) -> None:
    made = secured.squadron("keys", "create", "late", "--scope", "infer")
    headers = {"authorization": f"Bearer {made['key']}"}
    with secured.client() as client:
        before = client.post(INFER, json={"inputs": [INPUT]}, headers=headers)
        secured.squadron("keys", "revoke", made["id"])
        # The file is looked at ten times a second.
        for _ in range(100):
            after = client.post(INFER, json={"inputs": [INPUT]}, headers=headers)
            if after.status_code != 200:
                break

    assert before.json()["outputs"][0]["data"] == [3, 5, 7, 9]
    assert after.status_code == 401


def test_the_command_line_sends_the_key_of_its_environment(secured: Secured) -> None:
    door = secured.running.second_door
    found = secured.squadron("status", "--url", door, SQUADRON_API_KEY=secured.keys["boss"])

    with pytest.raises(subprocess.CalledProcessError):
        secured.squadron("status", "--url", door, SQUADRON_API_KEY="")

    assert {model["name"] for model in found["models"]} == {"echo", "twin"}
    assert {model["name"] for model in secured.running.ready["models"]} == {"echo", "twin"}


def test_no_key_is_seen_in_process_lists_logs_or_metrics(secured: Secured) -> None:
    with secured.client() as client:
        metrics = client.get("/metrics", headers=secured.headers("boss")).text
        client.post(INFER, json={"inputs": [INPUT]}, headers=secured.headers("other"))
    family = [
        psutil.Process(secured.running.process.pid),
        *psutil.Process(secured.running.process.pid).children(recursive=True),
    ]
    titles = " ".join(_title(each) for each in family)
    logs = (secured.keys_file.parent / "run/serve.stderr").read_text(errors="replace")

    assert "squadron_requests_total" in metrics
    assert "ServeReplica" in titles
    # An admin tried to unload a model above: that is written down, with the key's id.
    assert f"'POST /v2/repository/models/echo/unload' by key {_id(secured.keys['boss'])}" in logs
    assert "Redis keeps no state for now: ConnectionError" in logs
    (gcs,) = secured.running.pids("gcs_server")
    files = [each for each in _log_folder(gcs).rglob("*") if each.is_file()]
    everything = "".join(each.read_text(errors="replace") for each in files)
    shown = httpx.get(
        secured.running.dashboard() + "/api/serve/applications/",
        headers={"authorization": f"Bearer {_ray_token()}"},
        timeout=30,
    ).text
    assert f"${{{PASSWORD}}}" in shown
    for secret in (SECRET, *(key.split("_", 2)[2] for key in secured.keys.values())):
        for text in (metrics, titles, logs, everything, shown):
            assert secret not in text


def test_only_this_machine_reaches_the_ports_and_ray_s_asks_for_its_token(
    secured: Secured,
) -> None:
    found = secured.running
    addresses = (found.http, found.grpc, found.metrics.removesuffix("/metrics"), found.second_door)
    ports = {int(each.rsplit(":", 1)[1]) for each in addresses}
    hosts = {
        connection.laddr.ip
        for child in psutil.Process(found.process.pid).children(recursive=True)
        for connection in child.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
    }
    dashboard = found.dashboard()

    assert len(hosts) >= 1
    assert all(map(is_loopback, hosts)), hosts
    for path in ("/api/jobs/", "/api/serve/applications/"):
        assert httpx.get(dashboard + path, timeout=30).status_code == 401


def _log_folder(gcs_pid: int) -> Path:
    """Where Ray and Serve write, by the arguments of the cluster's own GCS."""
    words = psutil.Process(gcs_pid).cmdline()
    return Path(next(word for word in words if word.startswith("--log_dir=")).partition("=")[2])


def _ray_token() -> str:
    return os.environ.get("RAY_AUTH_TOKEN") or (Path.home() / ".ray/auth_token").read_text().strip()


def _id(key: str) -> str:
    return key.split("_", 2)[1]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
