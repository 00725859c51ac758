from __future__ import annotations

from cluster.control.reconcile import DeploymentSeen
from cluster.control.recovery import Recoveries, Told


def seen(*running: str, status: str = "HEALTHY", starting: int = 0) -> dict[str, DeploymentSeen]:
    deployment = DeploymentSeen(
        status=status,
        num_running=len(running),
        num_starting=starting,
        message="a replica's health check failed" if status == "UNHEALTHY" else "",
        running=running,
    )
    return {"m": deployment}


def watching(*running: str) -> Recoveries:
    made = Recoveries()
    assert made.step(seen(*running), 100.0) == ()
    return made


def kinds(told: tuple[Told, ...]) -> list[str]:
    return [each.kind for each in told]


def test_seconds_count_from_what_the_replica_said_until_its_replacement_runs() -> None:
    made = watching("a")
    (lost,) = made.lost("m", "a", "shard 1 has ended", 101.0)
    # Serve still counts it, then knows, then starts another.
    assert made.step(seen("a"), 101.5) == ()
    assert made.step(seen(status="UNHEALTHY"), 102.0) == ()
    assert made.step(seen(status="UNHEALTHY", starting=1), 103.0) == ()
    assert made.is_open
    (back,) = made.step(seen("b"), 109.4)

    assert lost.reason == (
        "shard 1 has ended; 0 of 1 replicas left, requests wait for the replacement or are told "
        "to come again"
    )
    assert (back.kind, round(back.seconds, 3)) == ("recovered", 8.4)
    assert back.reason == "ready again 8.4 s after the loss: 1 replicas (shard 1 has ended)"
    assert not made.is_open


def test_a_replica_that_was_killed_without_a_word_is_lost_when_serve_says_so() -> None:
    made = watching("a", "b")
    (lost,) = made.step(seen("b", status="UNHEALTHY", starting=1), 103.0)
    (back,) = made.step(seen("b", "c"), 105.5)

    assert lost == Told(
        kind="lost", variant="m", reason="a replica's health check failed; 1 of 2 replicas left"
    )
    assert back.seconds == 2.5


def test_a_second_loss_before_the_first_is_replaced_counts_from_the_first() -> None:
    made = watching("a", "b")
    made.lost("m", "a", "first", 101.0)
    assert made.lost("m", "a", "said twice", 101.5) == ()
    (second,) = made.lost("m", "b", "second", 104.0)
    assert made.step(seen("c", status="UNHEALTHY", starting=1), 106.0) == ()
    (back,) = made.step(seen("c", "d"), 111.0)

    assert second.reason.startswith("second; 0 of 2 replicas left")
    assert back.seconds == 10.0


def test_what_is_taken_away_on_purpose_is_no_loss() -> None:
    made = watching("a", "b")
    assert made.step(seen("a", status="DOWNSCALING"), 101.0) == ()
    assert made.step(seen("a"), 102.0) == ()
    assert made.step(seen("c", status="UPDATING", starting=0), 103.0) == ()
    assert made.step({}, 104.0) == ()
    assert not made.is_open


def test_fewer_replicas_than_before_are_enough_when_fewer_are_wanted() -> None:
    made = watching("a", "b")
    made.lost("m", "a", "gone", 101.0)
    assert made.step(seen("b", status="UNHEALTHY"), 102.0) == ()
    assert kinds(made.step(seen("b"), 103.0)) == ["recovered"]


def test_a_variant_that_is_unloaded_meanwhile_is_forgotten() -> None:
    made = watching("a")
    made.lost("m", "a", "gone", 101.0)
    assert made.step({}, 102.0) == ()
    assert not made.is_open
    assert made.step(seen("b"), 103.0) == ()


def test_a_controller_that_has_just_begun_takes_a_replicas_word() -> None:
    made = Recoveries()
    assert kinds(made.lost("m", "a", "gone", 101.0)) == ["lost"]
    assert made.step(seen("a"), 101.2) == ()
    assert kinds(made.step(seen("b"), 104.0)) == ["recovered"]
