"""A server's model under another placement, while the server runs."""

from __future__ import annotations

import json
import time

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

AGAIN_S = 0.5
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
    config: dict[str, object] = {
        "name": model,
        "parameters": {"placement": {"string_value": json.dumps(section)}},
    }
    if replicas is not None:
        config["instance_group"] = [{"count": replicas}]
    until_s = time.monotonic() + placement.start_timeout_s
    while True:
        try:
            return server.load(model, json.dumps(config))
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
                f"the server does not place models on request: {error.message}. Start it with "
                "server: {repository_control: explicit} (and use an admin key where it has keys), "
                f"or write in its YAML, below variants.{model}: "
                f"{yaml_of(placement)}{'' if replicas is None else f', replicas: {replicas}'}"
            ) from None
