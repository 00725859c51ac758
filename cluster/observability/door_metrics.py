"""What waits at the doors and what they refuse, a variant and a reason each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

Refusal = Literal["in_flight", "queue_full", "estimated_wait", "queue_timeout", "deadline"]
"""Why a request was not computed to its end: `in_flight`: too many inside the door (no variant);
`queue_full`: its level's queue; `estimated_wait`: it could not have been answered in time;
`queue_timeout`: it waited longer than its queue policy allows, or past its deadline, and was not
run; `deadline`: its time was over before the answer came."""

Denial = Literal["unauthorized", "forbidden", "rate_limited"]
"""Why a key did not help: none, a wrong or an expired one; not for this; has had its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorMetrics:
    """Sums over the node's doors."""

    rows_waiting: Gauge
    rows_under_way: Gauge
    refused: Counter
    denied: Counter
    answers_too_large: Counter


def declare_door_metrics(registry: CollectorRegistry) -> DoorMetrics:
    """Call once a registry."""

    def gauge(name: str, text: str) -> Gauge:
        return Gauge(name, text, ("variant",), registry=registry, multiprocess_mode="livesum")

    return DoorMetrics(
        rows_waiting=gauge(
            "squadron_door_rows_waiting", "Rows at the doors that no replica has room for yet."
        ),
        rows_under_way=gauge(
            "squadron_door_rows_under_way", "Rows handed to replicas and not answered yet."
        ),
        refused=Counter(
            "squadron_door_refused",
            "Requests that a door refused, or gave up when their time was over.",
            ("variant", "reason"),
            registry=registry,
        ),
        denied=Counter(
            "squadron_door_denied",
            "Requests that no key, or this one, allows; `key`: its name in the file of keys, empty "
            "for one that is not there.",
            ("key", "reason"),
            registry=registry,
        ),
        answers_too_large=Counter(
            "squadron_door_answers_too_large",
            "Answers, and messages of streams, above limits.max_response_bytes: not sent.",
            ("variant",),
            registry=registry,
        ),
    )
