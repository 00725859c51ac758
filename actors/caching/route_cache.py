"""Which requests the response cache answers, and under what key."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.caching.response_cache import Asked, Compute, How, Outputs, ResponseCache
from cluster.config.cache import CacheConfig
from cluster.observability.cache_metrics import CacheMetrics
from cluster.requests import InferenceRequest
from cluster.routing.cache_key import (
    answered_models,
    cache_key,
    cached_models,
    fingerprint,
    is_cacheable,
)
from cluster.routing.table import EnsembleRoute, RoutingTable, VariantRoute


class RouteCache:
    """Lives on one door's event loop."""

    def __init__(
        self,
        config: CacheConfig,
        metrics: CacheMetrics,
        table: RoutingTable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = ResponseCache(config, metrics, clock)
        self.adopt(table)

    def adopt(self, table: RoutingTable) -> None:
        """Use this table from the next request on. `models` are those that may be cached."""
        self._table = table
        self._fingerprints: dict[str, str] = {}
        self.models = cached_models(table)
        self._answered = answered_models(table)

    def takes(self, route: VariantRoute | EnsembleRoute, request: InferenceRequest) -> bool:
        return route.name in self._answered and is_cacheable(request)

    async def ask(
        self,
        route: VariantRoute | EnsembleRoute,
        request: InferenceRequest,
        deadline_s: float,
        compute: Compute,
    ) -> tuple[Outputs, How]:
        """Raises: what `compute` raises; DeadlineExceeded."""
        computed_by = self._fingerprints.get(route.name)
        if computed_by is None:
            computed_by = self._fingerprints[route.name] = fingerprint(self._table, route.name)
        settings = route.response_cache
        key = cache_key(
            request,
            route.signature,
            computed_by=computed_by,
            namespace=request.tenant if settings.namespace_by_tenant else "",
        )
        asked = Asked(
            key=key,
            model=route.model if isinstance(route, VariantRoute) else route.name,
            version=route.facts.version if isinstance(route, VariantRoute) else "1",
            ttl_s=settings.ttl_s,
            deadline_s=deadline_s,
        )
        return await self.store.answer(asked, compute)

    def write_counts(self) -> None:
        self.store.write_counts()

    async def close(self) -> None:
        await self.store.close()
