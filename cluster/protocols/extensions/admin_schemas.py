"""The admin API's shapes for the OpenAPI document."""

from __future__ import annotations

JsonObject = dict[str, object]

_TEXT: JsonObject = {"type": "string"}
_NUMBER: JsonObject = {"type": "number"}
_MAYBE_NUMBER: JsonObject = {"type": ["number", "null"]}
_COUNT: JsonObject = {"type": "integer"}
_FLAG: JsonObject = {"type": "boolean"}
_WEIGHTS: JsonObject = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}


def _object(required: tuple[str, ...], **properties: JsonObject) -> JsonObject:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(item: JsonObject) -> JsonObject:
    return {"type": "array", "items": item}


_DESCRIBED = _object(
    ("name", "kind", "state", "reason"), name=_TEXT, kind=_TEXT, state=_TEXT, reason=_TEXT
)
_ARM = _object(
    ("name", "weight", "requests", "errors", "latency_ms", "quality", "interval"),
    name=_TEXT,
    weight=_NUMBER,
    requests=_COUNT,
    errors=_COUNT,
    latency_ms=_object(("p50", "p99"), p50=_MAYBE_NUMBER, p99=_MAYBE_NUMBER),
    quality=_MAYBE_NUMBER,
    interval={"type": ["array", "null"], "items": _NUMBER},
    improvement=_MAYBE_NUMBER,
    p_value=_MAYBE_NUMBER,
)
_EXPERIMENT = _object(
    ("name", "status", "verdict", "reason", "sample_ratio", "arms"),
    name=_TEXT,
    status=_TEXT,
    verdict=_TEXT,
    reason=_TEXT,
    sample_ratio=_object(("ok", "p_value"), ok=_FLAG, p_value=_NUMBER),
    feedback=_object(("counted",), counted=_COUNT, handed_on=_COUNT, found=_COUNT),
    arms=_list(_ARM),
)
_RATING = _object(("request_id", "value"), request_id=_TEXT, value=_NUMBER)

_PROCESS = _object(
    ("kind", "variant", "replica", "state", "pid", "device"),
    kind={"type": "string", "enum": ["door", "replica", "shard"]},
    variant=_TEXT,
    replica=_TEXT,
    state=_TEXT,
    pid={"type": ["integer", "null"]},
    device=_TEXT,
    num_gpus=_NUMBER,
    holds=_list(_TEXT),
    num_shards=_COUNT,
    rank=_COUNT,
    stage=_COUNT,
    first_layer=_COUNT,
    last_layer=_COUNT,
    weight_bytes=_COUNT,
    tensor_rank=_COUNT,
    tensor_degree=_COUNT,
)
_NODE = _object(
    ("node_id", "address", "is_alive", "is_head", "num_cpus", "num_gpus", "processes"),
    node_id=_TEXT,
    address=_TEXT,
    is_alive=_FLAG,
    is_head=_FLAG,
    num_cpus=_NUMBER,
    num_gpus=_NUMBER,
    processes=_list(_PROCESS),
)

ADMIN_SCHEMAS: JsonObject = {
    "Models": _list(_DESCRIBED),
    "Variants": _list(_DESCRIBED),
    "Ensembles": _list(_DESCRIBED),
    "Traffic": _object(
        ("experiments",), experiments={"type": "object", "additionalProperties": _WEIGHTS}
    ),
    "Experiment": _EXPERIMENT,
    "Experiments": _list(_EXPERIMENT),
    "Weights": _WEIGHTS,
    "Feedback": {"oneOf": [_RATING, _list(_RATING)]},
    "Accepted": _object(
        ("accepted", "counted", "handed_on", "queued"),
        accepted=_COUNT,
        counted=_COUNT,
        handed_on=_COUNT,
        queued=_COUNT,
    ),
    "Decisions": _list(_object(("reason",), reason=_TEXT)),
    "Cluster": _list(_NODE),
    "Events": _list(
        _object(
            ("at_s", "kind", "subject", "reason"),
            at_s=_NUMBER,
            kind=_TEXT,
            subject=_TEXT,
            reason=_TEXT,
        )
    ),
}
