"""A server's model under another placement or other settings, while the server runs."""

from __future__ import annotations

import json
import time
from typing import Any

from cluster.client.remote.server import Server
from cluster.client.staged.placement import yaml_of
from cluster.config.placement import PlacementConfig
from cluster.errors import (
    CapacityError,
    DeadlineExceeded,
    EngineFailed,
    Forbidden,
    ModelNotFound,
    Unauthorized,
    Unsupported,
)
from cluster.protocols.triton.settings import (
    PLACEMENT,
    SETTINGS,
    with_settings,
    yaml_of_settings,
)

AGAIN_S = 0.5
START_TIMEOUT_S = 300.0
NOT_ALLOWED = "not allowed"
"""In Triton's words of a server whose models are fixed."""
NOT_POLLED = "failed to poll from model repository"
"""In Triton's words of a name that the server does not know."""


def load_placed(
    server: Server, model: str, placement: PlacementConfig, *, replicas: int | None = None
) -> None:
    """Returns when the model is served so, to every caller of the server.

    Raises: Unsupported by a server that loads nothing on request, with what to write instead;
    ModelNotFound with the names that it has; DeadlineExceeded when it does not stand within
    `start_timeout_s` of the placement.
    """
    section = placement.model_dump(mode="json", exclude_unset=True)
    written = f"{yaml_of(placement)}{'' if replicas is None else f', replicas: {replicas}'}"
    config: dict[str, object] = {"parameters": {PLACEMENT: {"string_value": json.dumps(section)}}}
    if replicas is not None:
        config["instance_group"] = [{"count": replicas}]
    _load(server, model, config, written, placement.start_timeout_s)


def load_with(server: Server, model: str, settings: dict[str, Any]) -> None:
    """The same for single keys over what the model is served with now: `device`, and those of `llm`
    and `placement` that `cluster.protocols.triton.settings` allows."""
    config: dict[str, object] = {"parameters": {SETTINGS: {"string_value": json.dumps(settings)}}}
    written = yaml_of_settings(with_settings({}, settings))
    _load(server, model, config, written, START_TIMEOUT_S)


def _load(
    server: Server, model: str, config: dict[str, object], written: str, patience_s: float
) -> None:
    until_s = time.monotonic() + patience_s
    while True:
        try:
            return server.load(model, json.dumps({"name": model, **config}))
        except DeadlineExceeded:
            # It goes on loading, and asking again changes nothing.
            if time.monotonic() >= until_s:
                raise
            time.sleep(AGAIN_S)
        except EngineFailed as error:
            if NOT_POLLED not in error.message:
                raise
            names = ", ".join(server.model_names()) or "none"
            raise ModelNotFound(
                f"the server has no model {model!r}, nor has its store; allowed: {names}"
            ) from None
        except (CapacityError, Forbidden, Unauthorized) as error:
            if isinstance(error, CapacityError) and NOT_ALLOWED not in error.message:
                raise
            raise Unsupported(
                f"the server changes no model on request: {error.message}. Start it with "
                "server: {repository_control: explicit} (and use an admin key where it has keys), "
                f"or write in its YAML, below variants.{model}: {written}"
            ) from None
