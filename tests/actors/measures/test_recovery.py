from __future__ import annotations

from dataclasses import replace

from actors.measures.recovery import RecoveryWatch
from cluster.control.reconcile import DeploymentSeen
from cluster.routing.table import RoutingTable
from tests.cluster.control.test_cluster_map import route

DEPLOYED = {"mine": "squadron", "loaded": "squadron+loaded-1"}
"""Variant -> the application of its deployment."""


class Watched:
    """A watch with a clock of its own, and what it told."""

    def __init__(self) -> None:
        self.observed_s: dict[str, float] = {}
        self.now_s = 10.0
        self.told: list[tuple[str, str]] = []
        self.watch = RecoveryWatch("squadron", self.observed_s.__setitem__, lambda: self.now_s)

    def note(self, kind: str, subject: str, reason: str) -> None:
        self.told.append((kind, subject))

    def look(self, *running: str, status: str = "HEALTHY") -> None:
        table = RoutingTable(
            version=1,
            routes={
                name: replace(route(name), app="" if app == "squadron" else app)
                for name, app in DEPLOYED.items()
            },
        )
        deployment = DeploymentSeen(
            status=status, num_running=len(running), num_starting=0, running=running
        )
        seen = {app: {f"variant-{name}": deployment} for name, app in DEPLOYED.items()}
        self.watch.look(seen, table, self.note)

    def seconds(self, name: str) -> float | None:
        return self.observed_s.get(name)


def test_a_recovery_is_an_event_and_a_time_of_its_variant() -> None:
    watched = Watched()
    watched.look("a")
    watched.watch.lost("loaded", "a", "shard 1 has ended", watched.note)
    assert watched.watch.is_open
    watched.now_s += 2.5
    watched.look("b")

    assert watched.told == [("lost", "loaded"), ("recovered", "loaded")]
    assert watched.seconds("loaded") == 2.5
    assert watched.seconds("mine") is None
    assert not watched.watch.is_open


def test_replicas_that_said_nothing_are_lost_in_every_application() -> None:
    watched = Watched()
    watched.look("a")
    watched.look(status="UNHEALTHY")
    watched.now_s += 4
    watched.look("b")

    assert sorted(watched.told) == [
        ("lost", "loaded"),
        ("lost", "mine"),
        ("recovered", "loaded"),
        ("recovered", "mine"),
    ]
    assert watched.seconds("mine") == 4


def test_without_a_table_there_is_nothing_to_lose() -> None:
    watched = Watched()
    watched.watch.look({}, None, watched.note)
    assert watched.told == []
