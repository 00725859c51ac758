"""What a caller may ask a job for, and what is refused before anything runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from cluster.config.section import NAME_PATTERN, Section
from cluster.errors import InvalidRequest, ModelNotFound
from cluster.models import MAX_THREADS
from cluster.routing.table import ExperimentRoute, RoutingTable, VariantRoute, version_of

DEFAULT_TIMEOUT_S = 1800.0
MAX_TIMEOUT_S = 6 * 3600.0
SOURCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[0-9]+)?$"
PROFILED_ENGINES = ("onnxruntime", "openvino", "torch")
LARGEST = {
    "num_threads": MAX_THREADS,
    "batch_size": 1024,
    "sequence_length": 131_072,
    "num_gpus": 64,
}
"""Of options by which a search takes threads, memory and devices."""
_NO_GRAPH = ("python", "fake", "causal_lm")


class AnyRequest(Section):
    """`id`: the caller's own, so that it may ask twice where it was not answered; empty: one is
    made."""

    id: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    model: str = Field(min_length=1, max_length=200)
    timeout_s: float = Field(default=DEFAULT_TIMEOUT_S, gt=0, le=MAX_TIMEOUT_S, strict=True)


class ProfileRequest(AnyRequest):
    """Times of every operator of a served variant, on the inputs sent or on a random row."""

    kind: Literal["profile"]
    num_calls: int = Field(default=20, ge=1, le=1000, strict=True)


class AskedLimits(Section):
    """See `GateLimits`; what is left out is as there."""

    max_accuracy_loss_points: float | None = Field(default=None, ge=0)
    min_top1_agreement: float | None = Field(default=None, ge=0, le=1)
    min_cosine: float | None = Field(default=None, ge=0, le=1)
    min_cosine_of_any: float | None = Field(default=None, ge=0, le=1)


class OptimizeRequest(AnyRequest):
    """A search over a served variant's artefact, judged on the data sent or on random inputs.

    `candidates`: NAME or NAME/VERSION of the server's store. `add_to_store`: the name under which
    what is chosen goes into that store; empty: it does not.
    """

    kind: Literal["optimize"]
    target: Literal["latency", "throughput", "size"] = "latency"
    target_device: Literal["cpu", "cuda", "multi_gpu"] = "cpu"
    level: Literal["basic", "balanced", "max"] = "balanced"
    options: dict[str, bool | int | float | str] = Field(default_factory=dict, max_length=64)
    limits: AskedLimits = AskedLimits()
    candidates: tuple[Annotated[str, Field(pattern=SOURCE_PATTERN, max_length=200)], ...] = Field(
        default=(), max_length=16
    )
    threads: int = Field(default=1, ge=1, le=MAX_THREADS, strict=True)
    num_rounds: int = Field(default=10, ge=1, le=100, strict=True)
    use_cache: bool = True
    add_to_store: str = Field(default="", pattern=rf"{NAME_PATTERN}|^$", max_length=200)

    @field_validator("options")
    @classmethod
    def _leaves_the_node_alive(
        cls, options: dict[str, bool | int | float | str]
    ) -> dict[str, bool | int | float | str]:
        """What the search itself would take, and the machine would not."""
        for key, largest in LARGEST.items():
            value = options.get(key, 1)
            if isinstance(value, int | float) and value > largest:
                raise ValueError(f"{key} may be {largest} at most")
        return options


JobRequest = ProfileRequest | OptimizeRequest

_REQUEST: TypeAdapter[JobRequest] = TypeAdapter(
    Annotated[ProfileRequest | OptimizeRequest, Field(discriminator="kind")]
)


def job_request(content: object) -> JobRequest:
    """`content`: the JSON without its tensors. Raises: InvalidRequest naming key and value."""
    if not isinstance(content, dict):
        raise InvalidRequest('a job is a JSON object, as in {"kind": "profile", "model": "NAME"}')
    try:
        return _REQUEST.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise InvalidRequest(_told(first)) from None


def _told(error: Any) -> str:
    kinds = ("profile", "optimize")
    path = [str(part) for part in error["loc"] if part not in kinds]
    if path[:1] == ["options"] and len(path) > 1:
        return f"'options.{path[1][:80]}' must be a number, a text, true or false"
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return f"'kind' of a job must be one of {', '.join(kinds)}"
    key = ".".join(path) or "the job"
    if error["type"] == "missing":
        return f"a job of this kind needs '{key}'"
    if error["type"] == "extra_forbidden":
        return f"'{key[:80]}' is no key of a job of this kind"
    return f"'{key[:80]}' is {str(error['input'])[:80]!r}: {error['msg']}"


def check_served(model: str, table: RoutingTable) -> VariantRoute:
    """The variant that is meant. `model`: NAME, or NAME/VERSION of a version that is served.

    Raises: ModelNotFound; InvalidRequest for what has no artefact of its own.
    """
    name, _, version = model.partition("/")
    route = table.routes.get(name)
    if route is not None and version and version != version_of(route):
        route = table.routes.get(table.versions_of(name).get(version, ""))
    if route is None:
        raise ModelNotFound(f"there is no model '{model[:80]}'")
    if isinstance(route, VariantRoute):
        if route.facts.unavailable:
            raise InvalidRequest(f"'{model}' cannot be served here: {route.facts.unavailable}")
        return route
    if isinstance(route, ExperimentRoute):
        kind, members = "experiment", tuple(route.weights)
    else:
        kind, members = "ensemble", tuple(route.plan.models)
    raise InvalidRequest(f"'{model}' is an {kind}; ask for one of {', '.join(members)}")


def check_can(request: JobRequest, *, model_format: str, engine: str) -> None:
    """Raises: InvalidRequest with what to use instead."""
    if isinstance(request, ProfileRequest):
        if model_format == "causal_lm":
            raise InvalidRequest(
                f"'{request.model}' is a language model: its server counts tokens, time to the "
                "first and between tokens (GET /metrics); per layer, profile its directory "
                "embedded: InferenceProfiler(Client().load_model(DIRECTORY))"
            )
        if engine not in PROFILED_ENGINES:
            raise InvalidRequest(
                f"'{request.model}' is served by {engine}, which counts nothing of its own; "
                f"profiled can be {', '.join(PROFILED_ENGINES)}. For user code: squadron profile "
                "--live PID on its machine"
            )
    elif model_format in _NO_GRAPH:
        raise InvalidRequest(
            f"'{request.model}' is format {model_format}, which has no graph to search over"
            + (
                "; weights of a language model are made smaller by `llm` in the YAML "
                "(quantisation, kv_cache_dtype)"
                if model_format == "causal_lm"
                else ""
            )
        )
