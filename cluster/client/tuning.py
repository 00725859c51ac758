"""What the `enable_*` methods do to what runs a model, and what they say when nothing can be done.

A function that gives a backend beside its setting made a new one, in the place of the old.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.client.backend import Backend, Generates
from cluster.client.embedded import EngineBackend
from cluster.client.remote.tuned import (
    attention_there,
    kv_cache_there,
    memory_there,
    on_gpu_there,
)
from cluster.client.values import Setting, is_number
from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.errors import ConfigError, Unsupported
from cluster.optimization.search.report import OptimizeReport

MIB = 2**20
_STRATEGIES = ("static", "dynamic")


def is_optimized(backend: Backend, report: OptimizeReport | None) -> bool:
    """By the search's report, else by what the card says of how the artefact was made; a server
    tells that of its variants in their configuration.

    Raises: Unsupported for an experiment or an ensemble of a server's, and for a server that is not
    Squadron.
    """
    if report is not None:
        return not report.chosen.is_reference
    if backend.is_remote:
        told: Mapping[str, Any] = getattr(backend, "config", {}).get("parameters", {})
        if "squadron_precision" not in told:
            variants = told.get("squadron_variants", {}).get("string_value", "")
            raise Unsupported(
                f"the server does not say how {backend.name} was made: it is no variant"
                + (f"; ask for one of {variants}" if variants else " of Squadron's")
            )
        precision, recipe = (
            str(told.get(f"squadron_{what}", {}).get("string_value", ""))
            for what in ("precision", "recipe")
        )
        return _is_of_a_recipe(precision, recipe)
    if not isinstance(backend, EngineBackend):
        return False
    card = backend.variant.card
    return _is_of_a_recipe(card.precision, card.provenance.recipe)


def _is_of_a_recipe(precision: str, recipe: str) -> bool:
    from cluster.optimization.search.recipes import EVERY_RECIPE

    if precision in ("int8", "int8-weights", "int4-weights", "mixed"):
        return True
    return any(recipe.startswith(f"{each.name}:") for each in EVERY_RECIPE)


def on_gpu(backend: Backend, device: str) -> tuple[Backend | None, Setting]:
    """Raises: ConfigError for what is no name of a GPU."""
    name = "gpu_acceleration"
    if device.partition(":")[0] not in ("cuda", "mps", "directml", "coreml"):
        raise ConfigError(
            f"device {device!r} is no GPU; allowed: cuda, cuda:N, mps, directml, coreml",
            key="device",
            value=device,
        )
    if backend.is_remote:
        return None, on_gpu_there(backend, device)
    try:
        if isinstance(backend, EngineBackend):
            made = EngineBackend(backend.variant, device=device, threads=backend.threads)
            says = f"runs on {made.provider}"
            return made, Setting(name=name, acts=True, says=says)
        mover = getattr(backend, "to_device", None)
        if mover is not None:
            mover(device)
            return None, Setting(name=name, acts=True, says=f"runs on {device}")
    except ConfigError as error:
        return None, Setting(name=name, acts=False, says=error.message)
    return None, Setting(name=name, acts=False, says="this kind of model stays where it is")


def efficient_attention(
    backend: Backend, cache: ArtefactCache | None
) -> tuple[Backend | None, Setting]:
    name = "efficient_attention"
    if backend.is_remote:
        return None, attention_there(backend)
    if isinstance(backend, EngineBackend):
        return _fused(backend, cache or ArtefactCache())
    switch = getattr(backend, "use_efficient_attention", None)
    if switch is None:
        return None, Setting(name=name, acts=False, says="the model has no attention to exchange")
    says, acts = switch()
    return None, Setting(name=name, acts=acts, says=says)


def _fused(backend: EngineBackend, cache: ArtefactCache) -> tuple[Backend | None, Setting]:
    from cluster.config.store import sha256_of
    from cluster.optimization.cache.fingerprint import hardware, library_versions
    from cluster.optimization.search.build import Bench, build
    from cluster.optimization.search.recipe import Material, operators_of
    from cluster.optimization.search.recipes import recipes_named

    name, variant = "efficient_attention", backend.variant
    if variant.card.format != "onnx" or variant.card.precision != "fp32":
        says = f"a graph in fp32 ONNX can be fused, not {variant.card.format} in "
        return None, Setting(name=name, acts=False, says=says + variant.card.precision)
    file = variant.folder / variant.card.artefact
    operators = operators_of(file)
    if {"Attention", "MultiHeadAttention"} & operators.keys():
        return None, Setting(name=name, acts=True, says="the graph has fused attention already")
    material = Material(
        card=variant.card,
        onnx=file,
        calibration=(),
        operators=operators,
        instructions=hardware().instructions,
    )
    bench = Bench(
        cache=cache,
        libraries=library_versions(),
        hardware=hardware().as_dict(),
        threads=backend.threads,
    )
    (recipe,) = recipes_named(("onnxruntime-fp32-fused",))
    candidate = build(recipe, material, sha256_of(file), bench)
    if candidate.variant is None:
        return None, Setting(name=name, acts=False, says=candidate.reason)
    found = operators_of(candidate.variant.folder / candidate.variant.card.artefact)
    num_fused = found.get("Attention", 0) + found.get("MultiHeadAttention", 0)
    if not num_fused:
        says = "ONNX Runtime's optimiser found no attention in the graph"
        return None, Setting(name=name, acts=False, says=says)
    made = EngineBackend(candidate.variant, device=backend.device, threads=backend.threads)
    return made, Setting(name=name, acts=True, says=f"{num_fused} fused attention operators")


def kv_cache(backend: Backend, max_sequence_length: int, strategy: str) -> Setting:
    """Raises: ConfigError for a length below 1 and another strategy."""
    if strategy not in _STRATEGIES:
        raise ConfigError(
            f"cache_strategy is {strategy!r}; allowed: static, dynamic",
            key="cache_strategy",
            value=strategy,
            allowed="static, dynamic",
        )
    if not is_number(max_sequence_length) or max_sequence_length < 1:
        raise ConfigError(
            f"max_sequence_length is {max_sequence_length!r}; allowed: 1 and more",
            key="max_sequence_length",
        )
    name = "kv_cache"
    if backend.is_remote:
        return kv_cache_there(backend, max_sequence_length, strategy)
    switch = getattr(backend, "use_kv_cache", None)
    if not isinstance(backend, Generates) or switch is None:
        return Setting(name=name, acts=False, says="the model generates nothing")
    switch(strategy, max_sequence_length)
    says = f"{strategy}, texts of at most {max_sequence_length} tokens"
    return Setting(name=name, acts=True, says=says)


def memory(
    backend: Backend, cpu_offload: bool, checkpointing: bool, max_memory_mb: float | None
) -> dict[str, Setting]:
    """Raises: ConfigError for a bound that is not above 0 or that one layer breaks."""
    if max_memory_mb is not None and not (is_number(max_memory_mb) and max_memory_mb > 0):
        raise ConfigError(
            f"max_memory_mb is {max_memory_mb!r}; allowed: above 0", key="max_memory_mb",
            value=max_memory_mb,
        )  # fmt: skip
    found: dict[str, Setting] = {}

    def say(name: str, acts: bool, says: str) -> None:
        found[name] = Setting(name=name, acts=acts, says=says)

    switch = getattr(backend, "bound_memory", None)
    reason = (
        "only torch language models hold their weights layer by layer; this engine loads whole "
        "models"
    )
    is_bound = False
    if max_memory_mb is not None:
        if backend.is_remote:
            found["max_memory_mb"] = memory_there(backend, max_memory_mb)
            is_bound, reason = bool(found["max_memory_mb"]), found["max_memory_mb"].says
        elif switch is not None:
            switch(int(max_memory_mb * MIB))
            is_bound = True
            say("max_memory_mb", True, f"at most {max_memory_mb:g} MiB of weights are resident")
        else:
            say("max_memory_mb", False, reason)
    if cpu_offload:
        if max_memory_mb is None and (backend.is_remote or switch is not None):
            say("enable_cpu_offload", False, "give max_memory_mb: it says how much stays")
        elif not is_bound:
            say("enable_cpu_offload", False, reason)
        else:
            where = getattr(backend, "offloads_to", "the files")
            say("enable_cpu_offload", True, f"layers beyond max_memory_mb wait in {where}")
    if checkpointing:
        say(
            "enable_activation_checkpointing",
            False,
            "it spares memory in training, between forward and backward; inference keeps no "
            "activations",
        )
    return found
