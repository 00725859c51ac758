"""What the `enable_*` methods do to a model of a server's: it is loaded again with another key of
its YAML, to every caller of the server, and stays so until that section of the YAML changes.

A server that loads nothing on request says what to write instead: that is no error, the setting
does not act.
"""

from __future__ import annotations

from typing import Any

from cluster.client.backend import Backend
from cluster.client.remote.optimized import OptimizedBackend
from cluster.client.remote.placed import load_with
from cluster.client.remote.server import Server
from cluster.client.values import Setting
from cluster.errors import SquadronError

TO_EVERYONE = "the server serves it so from now on, to everyone"
OF_VLLM = "vllm"


def on_gpu_there(backend: Backend, device: str) -> Setting:
    return _loaded(backend, "gpu_acceleration", {"device": device}, f"device: {device}")


def attention_there(backend: Backend) -> Setting:
    """Language models are run with fused attention already; a graph is fused by a search."""
    name = "efficient_attention"
    engine = _engine(backend)
    if engine == OF_VLLM:
        says = "vLLM's own attention over pages is what the server runs it with"
        return Setting(name=name, acts=True, says=says)
    if _language(backend) and engine != "onnxruntime":
        says = "scaled-dot-product attention of torch is what the server runs it with"
        return Setting(name=name, acts=True, says=says)
    return Setting(
        name=name,
        acts=False,
        says="no key of the YAML fuses a graph that is served: search for one that is, "
        f"client.optimize(client.load_model({backend.name!r}), level='basic'), then "
        "client.add_to_store(...) and `source:` with its name",
    )


def kv_cache_there(backend: Backend, max_sequence_length: int, strategy: str) -> Setting:
    name, of = "kv_cache", _language(backend)
    if of in ("", "logits"):
        return Setting(name=name, acts=False, says="the model generates nothing")
    if of == "tokens":
        told: dict[str, Any] = {"kv_cache": strategy}
        if strategy == "static":
            told["kv_cache_tokens"] = max_sequence_length
            says = f"static, texts of at most {max_sequence_length} tokens"
        else:
            says = "dynamic, texts as long as the model has positions: only `static` bounds them"
        return _loaded(backend, name, {"placement": told}, says)
    limit = f"texts of at most {max_sequence_length} tokens"
    if _engine(backend) == OF_VLLM:
        says = f"{limit}; vLLM reserves pages at its start and shares them, whatever the strategy"
        return _loaded(backend, name, {"llm": {"max_model_len": max_sequence_length}}, says)
    settings = {"cache_growth": strategy, "max_model_len": max_sequence_length}
    return _loaded(backend, name, {"llm": settings}, f"{strategy}, {limit}")


def memory_there(backend: Backend, max_memory_mb: float) -> Setting:
    settings = {"placement": {"max_memory_mb": max_memory_mb}}
    says = f"at most {max_memory_mb:g} MiB of weights are resident in each of its shards"
    return _loaded(backend, "max_memory_mb", settings, says)


def _loaded(backend: Backend, name: str, settings: dict[str, Any], says: str) -> Setting:
    try:
        if isinstance(backend, OptimizedBackend):
            backend = backend.served()  # the original is not what is meant
        server: Server = backend.server  # type: ignore[attr-defined]  # every remote one has it
        load_with(server, backend.name, settings)
    except SquadronError as error:
        # Refused, and what served before goes on serving.
        return Setting(name=name, acts=False, says=error.message)
    return Setting(name=name, acts=True, says=f"{says}; {TO_EVERYONE}")


def _engine(backend: Backend) -> str:
    return str(getattr(backend, "config", {}).get("backend", ""))


def _language(backend: Backend) -> str:
    """`text` of a language model, `tokens` of one that is given and gives tokens, `logits` of one
    that gives those; else empty."""
    inputs = {spec.name for spec in backend.signature.inputs}
    outputs = {spec.name for spec in backend.signature.outputs}
    if "text_output" in outputs:
        return "text"
    if inputs == {"input_ids"} and outputs & {"token", "logits"}:
        return "tokens" if "token" in outputs else "logits"
    return ""
