"""The admin API's shapes for the OpenAPI document."""

from __future__ import annotations

JsonObject = dict[str, object]

_TEXT: JsonObject = {"type": "string"}
_NUMBER: JsonObject = {"type": "number"}
_MAYBE_NUMBER: JsonObject = {"type": ["number", "null"]}
_COUNT: JsonObject = {"type": "integer"}
_MAYBE_TEXT: JsonObject = {"type": ["string", "null"]}
_FLAG: JsonObject = {"type": "boolean"}
_WEIGHTS: JsonObject = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}


def _object(required: tuple[str, ...], **properties: JsonObject) -> JsonObject:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(item: JsonObject) -> JsonObject:
    return {"type": "array", "items": item}


def _described(*required: str, **more: JsonObject) -> JsonObject:
    """A model: what each has, and what its kind has besides."""
    return _object(
        ("name", "kind", "state", "reason", *required),
        name=_TEXT,
        kind={"type": "string", "enum": ["variant", "experiment", "ensemble"]},
        state=_TEXT,
        reason=_TEXT,
        **more,
    )


_OF_VARIANT: dict[str, JsonObject] = {
    "version": _TEXT,
    "backend": _TEXT,
    "replicas": _COUNT,
    "is_colocated": _FLAG,
    "placement": _TEXT,
}
_OF_ENSEMBLE: dict[str, JsonObject] = {
    "models": _list(_TEXT),
    "inputs": _list(_TEXT),
    "outputs": _list(_TEXT),
    "steps": _list(
        _object(("name", "needs", "gives"), name=_TEXT, needs=_list(_TEXT), gives=_list(_TEXT))
    ),
}
_AGREEMENT: JsonObject = {
    **_object(
        ("mirrored", "failed", "skipped", "unlike"),
        mirrored=_COUNT,
        failed=_COUNT,
        skipped=_COUNT,
        unlike=_COUNT,
        top1=_MAYBE_NUMBER,
        cosine=_MAYBE_NUMBER,
        max_abs_difference=_MAYBE_NUMBER,
    ),
    "type": ["object", "null"],
}
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
    verdict=_MAYBE_TEXT,
    reason=_TEXT,
    slow=_COUNT,
    matched=_COUNT,
    callers=_COUNT,
    rated=_COUNT,
    requests_per_s=_NUMBER,
    engine_s=_NUMBER,
    engine_ms_per_row=_MAYBE_NUMBER,
    agreement=_AGREEMENT,
)
_EXPERIMENT = _object(
    ("name", "status", "verdict", "reason", "sample_ratio", "arms"),
    name=_TEXT,
    status=_TEXT,
    verdict=_TEXT,
    reason=_TEXT,
    sample_ratio=_object(("ok", "p_value"), ok=_FLAG, p_value=_NUMBER),
    control=_TEXT,
    goal={"type": "string", "enum": ["latency", "errors", "quality"]},
    alpha=_NUMBER,
    kind={"type": "string", "enum": ["split", "canary", "bandit"]},
    step=_COUNT,
    started_s=_NUMBER,
    age_s=_NUMBER,
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
    gpus=_list(_COUNT),
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
    accelerator=_TEXT,
    processes=_list(_PROCESS),
)
_JOB = _object(
    ("id", "kind", "model", "state", "reason", "created_s", "started_s", "ended_s", "steps"),
    id=_TEXT,
    kind={"type": "string", "enum": ["profile", "optimize"]},
    model=_TEXT,
    state={"type": "string", "enum": ["queued", "running", "succeeded", "failed", "cancelled"]},
    reason=_TEXT,
    created_s=_NUMBER,
    started_s=_MAYBE_NUMBER,
    ended_s=_MAYBE_NUMBER,
    steps=_list(_TEXT),
    error={
        **_object(("type", "message"), type=_TEXT, message=_TEXT),
        "type": ["object", "null"],
    },
    result={"type": ["object", "null"]},
)
_JOB_REQUEST = _object(
    ("kind", "model"),
    kind={"type": "string", "enum": ["profile", "optimize"]},
    id=_TEXT,
    model=_TEXT,
    timeout_s=_NUMBER,
    inputs=_list({"type": "object"}),
    num_calls=_COUNT,
    target={"type": "string", "enum": ["latency", "throughput", "size"]},
    target_device={"type": "string", "enum": ["cpu", "cuda", "multi_gpu"]},
    level={"type": "string", "enum": ["basic", "balanced", "max"]},
    options={"type": "object"},
    limits={"type": "object", "additionalProperties": _NUMBER},
    candidates=_list(_TEXT),
    threads=_COUNT,
    num_rounds=_COUNT,
    use_cache=_FLAG,
    add_to_store=_TEXT,
)

ADMIN_SCHEMAS: JsonObject = {
    "Job": _JOB,
    "Jobs": _list(_JOB),
    "JobRequest": _JOB_REQUEST,
    "StoreName": _object(("name",), name=_TEXT),
    "Stored": _object(("name", "version"), name=_TEXT, version=_TEXT),
    "Models": _list(_described(**_OF_VARIANT, **_OF_ENSEMBLE, weights=_WEIGHTS)),
    "Variants": _list(_described(*_OF_VARIANT, **_OF_VARIANT)),
    "Ensembles": _list(_described(*_OF_ENSEMBLE, **_OF_ENSEMBLE)),
    "Traffic": _object(
        ("table_version", "experiments"),
        table_version=_COUNT,
        experiments={"type": "object", "additionalProperties": _WEIGHTS},
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
    "Decisions": _list(
        _object(
            ("variant", "at_s", "num_before", "num_replicas", "reason", "is_latest"),
            variant=_TEXT,
            at_s=_NUMBER,
            num_before=_COUNT,
            num_replicas=_COUNT,
            reason=_TEXT,
            wanted=_COUNT,
            rate=_NUMBER,
            service_s=_NUMBER,
            is_guard=_FLAG,
            is_change=_FLAG,
            is_latest=_FLAG,
        )
    ),
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
