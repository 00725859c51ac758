"""What the doors say of the server and its models, for every transport the same."""

from __future__ import annotations

from importlib.metadata import version as installed_version

from actors.extensions import cuda_memory
from actors.front_door import FrontDoor
from cluster.protocols import v2_model
from cluster.protocols.v2_model import ModelDescription
from cluster.routing.table import EnsembleRoute, ExperimentRoute, VariantRoute, version_of

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "sequence",
    "sequence(string_id)",
    "statistics",
)
"""Only what works (protocol section 5.3), whatever the configuration says."""


REPOSITORY_EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")


def server_version(door: FrontDoor) -> str:
    """What the configuration says, else the installed version."""
    return door.server.version or installed_version("squadron-serve")


def extensions(door: FrontDoor) -> tuple[str, ...]:
    """What this server offers beside plain inference."""
    found = list(EXTENSIONS)
    if door.server.shared_memory.enabled:
        found.append("system_shared_memory")
        if cuda_memory.unavailable() == "":
            found.append("cuda_shared_memory")
    if door.server.repository_control == "explicit":
        found.extend(REPOSITORY_EXTENSIONS)
    return tuple(sorted(found))


def describe_server(door: FrontDoor) -> dict[str, object]:
    return v2_model.server_metadata(door.server.name, server_version(door), extensions(door))


def describe_model(door: FrontDoor, model: str, version: str = "") -> ModelDescription:
    """Raises: ModelNotFound."""
    route = door.route(model, version)
    variants = door.table.variants_of(route.name)
    match route:
        case VariantRoute(facts=facts):
            platform, backend = facts.platform, facts.backend
        case ExperimentRoute():
            platform, backend = "experiment", "squadron"
        case EnsembleRoute():
            platform, backend = "ensemble", "squadron"
    batching = variants[0].batching
    is_batched = all(variant.facts.is_batched for variant in variants)
    extras = [spec.name for spec in route.signature.extra_outputs]
    return ModelDescription(
        name=model,
        versions=tuple(door.table.versions_of(model)) or (version_of(route),),
        platform=platform,
        backend=backend,
        signature=route.signature,
        max_batch_size=(
            min(variant.batching.max_batch_size for variant in variants) if is_batched else 0
        ),
        preferred_batch_sizes=batching.preferred_batch_sizes,
        max_queue_delay_us=batching.max_queue_delay_us,
        is_decoupled=any(variant.facts.is_decoupled for variant in variants),
        sequences=variants[0].sequences if isinstance(route, VariantRoute) else None,
        num_instances=sum(variant.num_replicas for variant in variants),
        parameters={
            "squadron_variants": ",".join(variant.name for variant in variants),
            **({"outputs_on_request": ",".join(extras)} if extras else {}),
            **_made(route),
        },
    )


def _made(route: VariantRoute | ExperimentRoute | EnsembleRoute) -> dict[str, str]:
    """How a variant's artefact was made, for clients that ask whether it was optimised."""
    if not isinstance(route, VariantRoute) or not route.facts.made[0]:
        return {}
    precision, recipe = route.facts.made
    return {"squadron_precision": precision, "squadron_recipe": recipe}


def repository_index(door: FrontDoor, *, only_ready: bool) -> list[dict[str, str]]:
    index: list[dict[str, str]] = []
    for name in sorted({*door.table.routes, *door.table.unloaded}):
        for version, served_as in door.table.versions_of(name).items():
            state, reason = door.table.state_of(served_as)
            if state == "READY" or not only_ready:
                index.append({"name": name, "version": version, "state": state, "reason": reason})
    return index
