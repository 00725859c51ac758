"""What each part of the protocols asks of its caller. What is not named here needs an admin key."""

from __future__ import annotations

from typing import Literal

from cluster.access.keys import Caller
from cluster.errors import Forbidden

Need = Literal["nothing", "a key", "the model", "every model", "inference", "metrics", "admin"]
"""`nothing`: probes, which have no key. `the model`: a key that may use the model that is named.
`inference`: a key that may use some model; which one, the door checks when it knows the name."""

_MODEL = "/v2/models/{model}"

_OF_PATH: dict[tuple[str, str], Need] = {
    ("GET", "/v2/health/live"): "nothing",
    ("GET", "/v2/health/ready"): "nothing",
    ("GET", "/health"): "nothing",
    ("GET", "/ping"): "nothing",
    ("GET", "/-/healthz"): "nothing",
    ("GET", "/-/routes"): "nothing",
    # The page holds no data; a browser cannot send a key with its first request.
    ("GET", "/ui"): "nothing",
    ("GET", "/ui/console.css"): "nothing",
    ("GET", "/ui/console.js"): "nothing",
    ("GET", "/"): "a key",
    ("GET", "/v2"): "a key",
    ("GET", "/version"): "a key",
    ("GET", "/load"): "a key",
    ("GET", "/openapi.json"): "a key",
    ("GET", "/v1/models"): "a key",
    ("POST", "/v2/repository/index"): "a key",
    ("GET", "/metrics"): "metrics",
    ("GET", "/v2/models/stats"): "every model",
    ("GET", _MODEL): "the model",
    ("GET", f"{_MODEL}/ready"): "the model",
    ("GET", f"{_MODEL}/config"): "the model",
    ("GET", f"{_MODEL}/stats"): "the model",
    ("GET", "/v1/models/{name}"): "the model",
    ("POST", f"{_MODEL}/infer"): "the model",
    ("POST", f"{_MODEL}/generate"): "the model",
    ("POST", f"{_MODEL}/generate_stream"): "the model",
    ("POST", "/admin/v1/experiments/{name}/feedback"): "the model",
    ("POST", "/v1/chat/completions"): "inference",
    ("POST", "/v1/completions"): "inference",
    ("POST", "/v1/responses"): "inference",
    ("POST", "/v1/embeddings"): "inference",
    ("POST", "/v1/score"): "inference",
    ("POST", "/v1/rerank"): "inference",
    ("POST", "/v2/rerank"): "inference",
    ("POST", "/score"): "inference",
    ("POST", "/rerank"): "inference",
    ("POST", "/tokenize"): "inference",
    ("POST", "/detokenize"): "inference",
}
_OF_RPC: dict[str, Need] = {
    "ServerLive": "nothing",
    "ServerReady": "nothing",
    "Check": "nothing",
    "Watch": "nothing",
    "ServerMetadata": "a key",
    "RepositoryIndex": "a key",
    "ServerReflectionInfo": "a key",
    "ModelReady": "the model",
    "ModelMetadata": "the model",
    "ModelConfig": "the model",
    # Without a name it is about all of them.
    "ModelStatistics": "the model",
    "ModelInfer": "inference",
    "ModelStreamInfer": "inference",
}


def need_of_path(method: str, path: str) -> Need:
    """`path`: a route's template, without a version."""
    return _OF_PATH.get((method, path), "admin")


def need_of_rpc(name: str) -> Need:
    return _OF_RPC.get(name, "admin")


def check_need(need: Need, caller: Caller, model: str = "") -> None:
    """`model`: the one that path or message names; none stands for all. Raises: Forbidden."""
    match need:
        case "the model" if model:
            check_model(caller, model)
        case "the model" | "every model":
            if not caller.may_infer_all():
                raise Forbidden("the API key is not for every model: scope 'infer' is needed")
        case "inference":
            if not (caller.is_admin or caller.may_infer_some()):
                raise Forbidden("the API key is for no model: scope 'infer' is needed")
        case "metrics":
            if not caller.may_scrape():
                raise Forbidden("the API key may not read metrics: scope 'metrics' is needed")
        case "admin":
            if not caller.is_admin:
                raise Forbidden("the API key may not do this: scope 'admin' is needed")
        case "nothing" | "a key":
            pass


def check_model(caller: Caller, model: str) -> None:
    """Raises: Forbidden. The same for a model that is there and one that is not."""
    if not caller.may_infer(model):
        raise Forbidden(f"the API key is not for model '{model[:80]}'")
