"""Load and unload over HTTP: the parameters of the request's JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cluster.errors import InvalidRequest


def decode_load(content: Mapping[str, Any]) -> tuple[str, dict[str, bytes]]:
    """The configuration (JSON in a string; empty when none was sent) and the files, by parameter.

    Raises: InvalidRequest naming the parameter.
    """
    config, files = "", {}
    for name, value in _parameters(content).items():
        if name != "config" and not name.startswith("file:"):
            raise InvalidRequest(f"load parameter {name[:80]!r}: allowed: 'config', 'file:...'")
        if not isinstance(value, str):
            raise InvalidRequest(f"load parameter {name[:80]!r} must be a string")
        if name == "config":
            config = value
            continue
        try:
            files[name] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"load parameter {name[:80]!r} is not base64") from None
    return config, files


def decode_unload(content: Mapping[str, Any]) -> bool:
    """Whether what only the model needs is unloaded too. Raises: InvalidRequest."""
    value = _parameters(content).get("unload_dependents", False)
    if not isinstance(value, bool):
        raise InvalidRequest("unload parameter 'unload_dependents' must be true or false")
    return value


def _parameters(content: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = content.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest("'parameters' must be an object")
    return parameters
