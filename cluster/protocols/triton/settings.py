"""What a `ModelConfig` that is sent may change besides Triton's own fields: `parameters.placement`
(the section, whole) and `parameters.settings` (single keys of a few sections, over what they are).

No key that names a file or code: a caller chooses how a model is run, never what.
"""

from __future__ import annotations

import json
from typing import Any

from cluster.config.placement import PlacementConfig
from cluster.errors import InvalidRequest

PLACEMENT = "placement"
"""Parameter of a configuration that is sent: the variant's section `placement`, as JSON."""
SETTINGS = "settings"
"""The same for `{"device": …, "llm": {…}, "placement": {…}}`."""
ALLOWED: dict[str, tuple[str, ...]] = {
    "llm": ("cache_growth", "max_model_len"),
    "placement": ("kv_cache", "kv_cache_tokens", "max_memory_mb"),
}


def take_placement(config: Any) -> object | None:
    """Taken out of the parameters: a replica's shards are ours alone, Triton has no field of it.

    Raises: InvalidRequest for what is no JSON object.
    """
    return _taken(config, PLACEMENT)


def take_settings(config: Any) -> dict[str, Any]:
    """Raises: InvalidRequest for what is no JSON object, and for other keys."""
    found = _taken(config, SETTINGS) or {}
    for key, value in found.items():
        where = f"parameters.{SETTINGS}.{key}"
        if key == "device":
            continue
        if key not in ALLOWED:
            allowed = ", ".join(("device", *ALLOWED))
            raise InvalidRequest(f"{where[:100]} is no setting; allowed: {allowed}")
        if not isinstance(value, dict):
            raise InvalidRequest(f"{where}: expected an object, got {str(value)[:80]}")
        other = sorted(set(value) - set(ALLOWED[key]))
        if other:
            allowed = ", ".join(ALLOWED[key])
            raise InvalidRequest(f"{where}.{other[0][:80]} is no setting; allowed: {allowed}")
    return found


def with_settings(content: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """`content`: a variant's section. A model that stays whole becomes one shard process, which is
    what bounds its weights and keeps keys and values."""
    made = dict(content)
    if "device" in settings:
        made["device"] = settings["device"]
    if "llm" in settings:
        made["llm"] = {**(content.get("llm") or {}), **settings["llm"]}
    if "placement" in settings:
        before = dict(content.get("placement") or {})
        is_sharded = PlacementConfig.model_validate(before).is_sharded
        base = before if is_sharded else {"strategy": "layer", "shards": 1}
        if settings["placement"].get("kv_cache") == "dynamic":
            base.pop("kv_cache_tokens", None)
        made["placement"] = {**base, **settings["placement"]}
    return made


def _taken(config: Any, name: str) -> dict[str, Any] | None:
    if name not in config.parameters:
        return None
    text = config.parameters[name].string_value
    del config.parameters[name]
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"parameters.{name}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"parameters.{name}: expected an object, got {text[:80]}")
    return found


def has_settings(config: Any) -> bool:
    return SETTINGS in config.parameters


def yaml_of_settings(settings: dict[str, Any]) -> str:
    """The same as lines of a variant's section, in one."""
    parts = []
    for key, value in settings.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{name}: {each}" for name, each in value.items())
            parts.append(f"{key}: {{{inner}}}")
        else:
            parts.append(f"{key}: {value}")
    return ", ".join(parts)
