"""What a job takes from the server's store, and whether it may put something there."""

from __future__ import annotations

from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.control.jobs.request import JobRequest, OptimizeRequest
from cluster.errors import ConfigError, InvalidRequest, Unsupported
from cluster.optimization.remote.mirror import MirroredStore


def of_version(variant: VariantConfig, version: str, store: ModelStore) -> VariantConfig:
    """A source without a version means the newest in the store, which need not be served yet."""
    source = variant.source or ""
    if not source or "/" in source or not store.has(source, version):
        return variant
    return variant.model_copy(update={"source": f"{source}/{version}"})


def candidates(request: JobRequest, store: ModelStore) -> tuple[str, ...]:
    """Folders of the store. Raises: InvalidRequest for a name that it has not."""
    if not isinstance(request, OptimizeRequest):
        return ()
    try:
        found = []
        for each in request.candidates:
            name, _, version = each.partition("/")
            found.append(str(store.folder(name, version)))
    except ConfigError:
        raise InvalidRequest(f"candidates: the server's store has no model '{each}'") from None
    return tuple(found)


def check_writable(store: ModelStore) -> None:
    if isinstance(store, MirroredStore):
        raise Unsupported(
            f"the server's store is {store.uri}, which is only read here: run squadron optimize "
            "where it is written, then squadron models push"
        )
