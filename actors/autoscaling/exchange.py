"""Between Serve's policy and our autoscaler: a thread that tells one and asks the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray

from actors.autoscaling.names import BATCH, BUSY, MEMORY, NAMESPACE, ROWS, SERVED, autoscaler_name
from cluster.control.autoscaling.gather import DeploymentReport

PERIOD_S = 0.5
ANSWER_S = 5.0
STALE_S = 10.0
"""A number that was told longer ago than this is not asked for any more: what there is stays."""

logger = logging.getLogger("squadron.autoscaling")


class Exchange:
    """One an application, in Serve's controller. `tell` and `target` never wait."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._seen: dict[str, DeploymentReport] = {}
        self._looked_s: dict[str, float] = {}
        self._targets: Mapping[str, int] = {}
        self._told_s = 0.0
        self._thread = threading.Thread(target=self._run, name="squadron-autoscaling", daemon=True)
        self._thread.start()

    def tell(self, variant: str, context: Any) -> None:
        """`context`: Serve's, of one deployment; what its replicas recorded costs it some work."""
        now_s = time.monotonic()
        if now_s - self._looked_s.get(variant, 0.0) < PERIOD_S:
            return
        self._looked_s[variant] = now_s
        raw = context.raw_metrics or {}
        report = DeploymentReport(
            num_running=context.current_num_replicas,
            num_target=context.target_num_replicas,
            busy_s=_last(raw.get(BUSY, {})),
            num_served=_last(raw.get(SERVED, {})),
            num_rows=_last(raw.get(ROWS, {})),
            batch_s={
                int(name.removeprefix(BATCH)): max(_last(series).values(), default=0.0)
                for name, series in raw.items()
                if name.startswith(BATCH) and series
            },
            memory_bytes=int(max(_last(raw.get(MEMORY, {})).values(), default=0)),
        )
        with self._lock:
            self._seen[variant] = report

    def target(self, variant: str, held: int) -> int:
        """The last number that was decided, if it is not too old; else `held`."""
        if time.monotonic() - self._told_s > STALE_S:
            return held
        return self._targets.get(variant, held)

    def _run(self) -> None:
        while True:
            time.sleep(PERIOD_S)
            # Outside Serve's controller (in a test) asking for an actor would start a Ray.
            if not ray.is_initialized():
                continue
            with self._lock:
                seen = dict(self._seen)
            try:
                # Ray types the result of an async method as never.
                actor: Any = ray.get_actor(autoscaler_name(self._app), namespace=NAMESPACE)
                told: Any = ray.get(actor.exchange.remote(seen), timeout=ANSWER_S)
                self._targets = told
                self._told_s = time.monotonic()
            except Exception as error:
                # It starts with the first door, and restarts when it dies: the numbers stay.
                logger.debug("no autoscaler (%s)", type(error).__name__)


def _last(series: Mapping[Any, Any]) -> dict[str, float]:
    """Replica -> the newest value of its time series."""
    return {
        replica.unique_id: float(values[-1].value) for replica, values in series.items() if values
    }


_exchanges: dict[str, Exchange] = {}


def exchange_of(app: str) -> Exchange:
    """Serve asks its policies one after the other, so nobody makes two."""
    found = _exchanges.get(app)
    if found is None:
        found = _exchanges[app] = Exchange(app)
    return found
