"""A worker's pod is deleted under load, as Kubernetes does it with the manifests of ours.

The endpoint leaves the Service, the preStop hook runs, SIGTERM goes to `ray start --block`, which
is the container's first process, and SIGKILL after the grace period. With `hook="ray-stop"` the
preStop hook is the one of upstream's samples instead.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loadtests.fleet.cluster import Fleet
from loadtests.fleet.pods import Pod
from loadtests.fleet.service import Load, Service, Tally

Hook = Literal["manifests", "ray-stop"]
PROBE_PERIOD_S = 5.0
"""KubeRay's readiness probe: every 5 s, one failure is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Seconds since the pod was deleted. `was_killed`: it outlived its grace period."""

    endpoint_left_s: float
    terminated_s: float
    ended_s: float
    was_killed: bool


async def drain(
    fleet: Fleet, *, hook: Hook, load: Load, endpoint_delay_s: float
) -> dict[str, object]:
    """Delete the second worker after a tenth of the requests; what became of all of them."""
    victim, others = fleet.workers[1], [fleet.workers[0], *fleet.workers[2:]]
    service = Service({pod.address for pod in fleet.workers}, random.Random(1))
    tally = Tally()
    may_begin = asyncio.Event()

    def tell(sent: int) -> None:
        if sent >= load.num_requests // 10:
            may_begin.set()

    probing = asyncio.create_task(_probe(fleet, service, victim))
    running = asyncio.create_task(load.run(service, tally, tell))
    await may_begin.wait()
    before = dict(tally.answered)
    deleted_s = time.monotonic()
    deletion = await _delete(fleet, service, victim, hook, endpoint_delay_s)
    sent_at_end = tally.sent
    await running
    probing.cancel()
    return {
        "hook": hook,
        "requests": tally.sent,
        "failed": tally.num_failed,
        "failures": dict(tally.failed),
        "first_failed_after_s": [round(at - deleted_s, 1) for at in tally.first_failed_s[:3]],
        "answered_by_deleted": tally.answered[victim.address],
        "answered_by_others": sum(tally.answered[pod.address] for pod in others),
        "answered_before": sum(before.values()),
        "sent_after_its_end": tally.sent - sent_at_end,
        "longest_answered_s": round(tally.longest_s, 2),
        "endpoint_left_s": deletion.endpoint_left_s,
        "sigterm_s": deletion.terminated_s,
        "ended_s": deletion.ended_s,
        "was_killed": deletion.was_killed,
        "grace_s": fleet.manifest.worker.grace_s,
    }


async def _delete(
    fleet: Fleet, service: Service, pod: Pod, hook: Hook, endpoint_delay_s: float
) -> Deletion:
    spec = fleet.manifest.worker
    began_s = time.monotonic()
    leaving = asyncio.create_task(_leave(service, pod, endpoint_delay_s))
    if hook == "ray-stop":
        command = [str(Path(sys.executable).with_name("ray")), "stop"]
        await asyncio.to_thread(pod.run, command, fleet.environment(spec))
    else:
        if spec.pre_stop:
            await asyncio.to_thread(pod.run, list(spec.pre_stop), fleet.environment(spec))
        await asyncio.sleep(spec.pre_stop_sleep_s)
    terminated_s = time.monotonic() - began_s
    pod.send(signal.SIGTERM)
    left_s = spec.grace_s - terminated_s
    has_ended = await asyncio.to_thread(pod.wait, max(left_s, 2.0))
    if not has_ended:
        pod.send(signal.SIGKILL)
        await asyncio.to_thread(pod.wait, 30)
    await leaving
    return Deletion(
        endpoint_left_s=endpoint_delay_s,
        terminated_s=round(terminated_s, 1),
        ended_s=round(time.monotonic() - began_s, 1),
        was_killed=not has_ended,
    )


async def _leave(service: Service, pod: Pod, delay_s: float) -> None:
    """The endpoint controller and every node's kube-proxy take their time."""
    await asyncio.sleep(delay_s)
    service.ready.discard(pod.address)


async def _probe(fleet: Fleet, service: Service, terminating: Pod) -> None:
    """The kubelet's readiness probe; a pod that is being deleted never becomes ready again."""
    while True:
        await asyncio.sleep(PROBE_PERIOD_S)
        for pod in fleet.workers:
            if await asyncio.to_thread(fleet.is_ready, pod):
                if pod is not terminating:
                    service.ready.add(pod.address)
            elif len(service.ready) > 1:
                service.ready.discard(pod.address)
