"""How `squadron serve` asks the server that it started: with a key where one is needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:  # `status` reads no configuration and waits for none of it
    from cluster.config.serve_file import ServeFile
    from cluster.config.squadron import SquadronConfig

KEY_VARIABLE = "SQUADRON_API_KEY"
"""An environment variable, for what stands on a command line is seen by everybody."""


def key_headers() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "")
    return {"authorization": f"Bearer {key}"} if key else {}


def reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


class OwnDoor:
    """`http`, `grpc`, `metrics` are for callers. With TLS we ask the same door without looking at
    its certificate (it is our own process), and Serve's ingress where callers need one of theirs.
    """

    def __init__(self, serve_file: ServeFile, config: SquadronConfig) -> None:
        server = config.server
        scheme = "http" if server.tls is None else "https"
        self.http = f"{scheme}://{reachable(server.http.host)}:{server.http.port}"
        self.grpc = f"{reachable(server.grpc.host)}:{server.grpc.port}"
        self.metrics = f"{scheme}://{reachable(server.metrics.host)}:{server.metrics.port}/metrics"
        self.needs_key = bool(server.api_keys)
        asked = self.http
        if server.tls is not None and server.tls.client_ca:
            options = serve_file.http_options
            asked = f"http://{reachable(options.host)}:{options.port}"
        self._client = httpx.Client(
            base_url=asked + server.base_path, headers=key_headers(), timeout=2, verify=False
        )

    def index(self) -> list[dict[str, str]]:
        """Every model and its state; empty where our key does not show them. Raises: HTTPError,
        ValueError while nothing listens."""
        answer = self._client.post("/v2/repository/index")
        if answer.status_code in (401, 403):
            return []
        found: list[dict[str, str]] = answer.json()
        return found

    def is_ready(self) -> bool:
        return self._client.get("/v2/health/ready").status_code == 200

    def inputs(self, model: str) -> list[dict[str, Any]]:
        """None where our key does not show them."""
        answer = self._client.get(f"/v2/models/{model}")
        found: list[dict[str, Any]] = answer.json().get("inputs", [])
        return found

    def is_decoupled(self, model: str) -> bool:
        """Whether it answers streams only; False where our key does not show it."""
        answer = self._client.get(f"/v2/models/{model}/config")
        policy = answer.json().get("model_transaction_policy", {})
        return bool(policy.get("decoupled"))

    def is_listed(self, model: str) -> bool:
        """Whether `openai` clients can call it."""
        return self._client.get(f"/v1/models/{model}").status_code == 200

    def close(self) -> None:
        self._client.close()
