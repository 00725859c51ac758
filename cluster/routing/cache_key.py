"""What makes two requests the same to the response cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NewType

import orjson
from blake3 import blake3

from cluster.protocols.v2_binary import bytes_from_tensor
from cluster.requests import InferenceRequest, Parameter
from cluster.routing.table import EnsembleRoute, ExperimentRoute, Route, RoutingTable, VariantRoute
from cluster.tensors import Signature, Tensor

CacheKey = NewType("CacheKey", bytes)

_NOT_OF_THE_ANSWER = frozenset(
    {"priority", "timeout", "binary_data_output", "sequence_start", "sequence_end", "sequence_id"}
)
"""Parameters that say how to answer, not what."""


def is_cacheable(request: InferenceRequest) -> bool:
    """A request of a sequence is answered from what came before it."""
    return request.parameters.get("sequence_id") in (None, 0, "")


def cached_models(table: RoutingTable) -> frozenset[str]:
    """The models of which an answer may be kept: by their own switch, or an arm's."""

    def is_cached(route: Route) -> bool:
        if isinstance(route, ExperimentRoute):
            return any(is_cached(table.known(arm.variant)) for arm in route.arms)
        return route.response_cache.enabled

    return frozenset(name for name, route in table.routes.items() if is_cached(route))


def answered_models(table: RoutingTable) -> frozenset[str]:
    """Those that the cache may answer for now. A model that is gone does not go on answering, nor
    is an answer kept of what has many or remembers."""
    return frozenset(
        name
        for name, route in table.routes.items()
        if not isinstance(route, ExperimentRoute) and route.response_cache.enabled
        if table.state_of(name)[0] != "UNAVAILABLE"
        if all(
            variant.sequences is None and not variant.facts.is_decoupled
            for variant in table.variants_of(name)
        )
    )


def fingerprint(table: RoutingTable, name: str) -> str:
    """What computes a model's answers: it changes with any artefact, processing or step of it."""
    match table.known(name):
        case VariantRoute(facts=facts):
            return f"{name}/{facts.version}/{facts.fingerprint}"
        case EnsembleRoute(plan=plan):
            steps = [planned.step.model_dump_json() for planned in plan.steps]
            members = [fingerprint(table, model) for model in plan.models]
            return digest_of([name, steps, members])
        case ExperimentRoute(arms=arms):
            return digest_of([name, [fingerprint(table, arm.variant) for arm in arms]])


def digest_of(value: object) -> str:
    """Of anything that JSON can hold."""
    return blake3(orjson.dumps(value)).hexdigest()


def cache_key(
    request: InferenceRequest, signature: Signature, *, computed_by: str, namespace: str = ""
) -> CacheKey:
    """The digest of all that the answer depends on. The order of the inputs is not part of it, and
    to name all outputs is the same as to name none.

    A cryptographic digest: nobody can make a request that gets or gives another one's answer.
    Source: our measurement, blake3 0.33 µs for 64 bytes and 114 µs for 1 MiB on one core.
    """
    asked = (
        computed_by,
        namespace,
        [output.name for output in request.outputs or signature.outputs],
        _parameters(request.parameters),
    )
    return _key(asked, request.inputs)


def inputs_key(inputs: Sequence[Tensor]) -> CacheKey:
    """The digest of a request's tensors alone, whatever is asked of them."""
    return _key((), inputs)


def _key(asked: tuple[object, ...], tensors: Sequence[Tensor]) -> CacheKey:
    inputs = sorted(tensors, key=_name)
    parts = [bytes_from_tensor(tensor) for tensor in inputs]
    described = [
        (tensor.name, tensor.datatype, tensor.shape, len(part))
        for tensor, part in zip(inputs, parts, strict=True)
    ]
    head = orjson.dumps([*asked, described])
    digest = blake3(len(head).to_bytes(8, "little") + head)
    for part in parts:
        digest.update(part)
    return CacheKey(digest.digest())


def _name(tensor: Tensor) -> str:
    return tensor.name


def _parameters(parameters: Mapping[str, Parameter]) -> list[tuple[str, str, str]]:
    return sorted(
        (key, type(value).__name__, repr(value))
        for key, value in parameters.items()
        if key not in _NOT_OF_THE_ANSWER
    )
