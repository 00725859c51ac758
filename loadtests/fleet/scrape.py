"""What Prometheus gets from two nodes: in the right format, and every request counted once, also
after a replica was killed."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
from collections.abc import Sequence

import httpx
import psutil

from cluster.cli.programs import where_is
from loadtests.fleet.cluster import Fleet
from loadtests.fleet.pods import Pod, title_of
from loadtests.fleet.service import Load, Service, Tally

MODEL = "sentiment-head"
COUNTERS = ("squadron_requests_total", "nv_inference_request_success")
"""At the doors and at the replicas."""


async def scrape(fleet: Fleet, *, num_requests: int) -> dict[str, object]:
    """`counted_*`: metric -> the sum over the nodes, after as many requests as `sent_*` says."""
    service = Service({pod.address for pod in fleet.workers}, random.Random(1))
    load = Load(num_requests=num_requests, rate_per_s=100.0, num_slow=0)
    tally = Tally()
    await load.run(service, tally, lambda _: None)
    first = await _settled(fleet, num_requests)
    killed = _kill_a_replica(fleet.workers[1])
    after_kill = [text_of(pod) for pod in fleet.workers]
    await asyncio.to_thread(
        fleet.until, lambda: _replicas(fleet) >= len(fleet.workers), "no new replica"
    )
    await load.run(service, tally, lambda _: None)
    second = await _settled(fleet, 2 * num_requests)
    return {
        "nodes": len(fleet.workers),
        "failed": tally.num_failed,
        "killed": killed,
        "sent_before": num_requests,
        "counted_before": sums(first),
        "counted_after_kill": sums(after_kill),
        "sent_after": 2 * num_requests,
        "counted_after": sums(second),
        "on_both_nodes": all(sums([text])[COUNTERS[0]] > 0 for text in second),
        "promtool": check_metrics(second),
    }


def check_metrics(texts: Sequence[str]) -> list[str] | None:
    """What `promtool check metrics` says of the nodes' scrapes, each thing once; None where it is
    not installed. Triton's names are Triton's, also where promtool would have chosen others."""
    program = where_is("promtool")
    if program is None:
        return None
    found = []
    for text in texts:
        done = subprocess.run(
            [program, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        lines = (done.stdout + done.stderr).splitlines()
        found += [line for line in lines if line.strip() and not _is_of_triton(line)]
        if done.returncode not in (0, 3):  # 3: remarks on style, which are among the lines
            found.append(f"exit {done.returncode}")
    return sorted(set(found))


def _is_of_triton(line: str) -> bool:
    """A remark on a name; a line that cannot be parsed is never one."""
    return line.startswith("nv_") and " should " in line


def sums(texts: Sequence[str]) -> dict[str, float]:
    """Metric -> its value for the model, over all label sets and nodes."""
    return {
        name: sum(value for text in texts for value in _values(text, name)) for name in COUNTERS
    }


def text_of(pod: Pod) -> str:
    answer = httpx.get(f"http://{pod.address}:8002/metrics", timeout=10)
    answer.raise_for_status()
    return answer.text


async def _settled(fleet: Fleet, expected: int) -> list[str]:
    """The nodes' scrapes once they say `expected`, or as they are after a while (which fails)."""
    texts: list[str] = []
    for _ in range(50):
        texts = [text_of(pod) for pod in fleet.workers]
        if set(sums(texts).values()) == {float(expected)}:
            break
        await asyncio.sleep(0.2)
    return texts


def _values(text: str, metric: str) -> list[float]:
    lines = re.findall(rf"^{metric}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
    return [float(value) for labels, value in lines if f'model="{MODEL}"' in labels]


def _kill_a_replica(pod: Pod) -> int:
    (first, *_) = _replica_pids(pod)
    first.kill()
    return first.pid


def _replica_pids(pod: Pod) -> list[psutil.Process]:
    return [each for each in pod.processes() if f"variant-{MODEL}" in title_of(each)]


def _replicas(fleet: Fleet) -> int:
    return sum(len(_replica_pids(pod)) for pod in fleet.workers)
