"""How long a pod takes to stop: what runs before SIGTERM, and the grace period around all of it."""

from __future__ import annotations

import re

from cluster.kubernetes.finding import Document

GRACE_DEFAULT_S = 30
_SLEEP = re.compile(r"(?:^|[\s;&|/])sleep\s+(\d+(?:\.\d+)?)([smhd]?)\b")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def pre_stop(container: Document) -> Document:
    """Its hook; empty when there is none, or a list stands in its place (`check` says so)."""
    lifecycle = container.get("lifecycle")
    found = lifecycle.get("preStop") if isinstance(lifecycle, dict) else None
    return found if isinstance(found, dict) else {}


def pre_stop_command(container: Document) -> str:
    """What its hook runs, one line; empty for none."""
    run = pre_stop(container).get("exec")
    command = run.get("command") if isinstance(run, dict) else None
    return " ".join(map(str, command)) if isinstance(command, list) else ""


def pre_stop_s(container: Document) -> float:
    """Seconds that the hook is written to take: `sleep: {seconds: 10}`, `exec: [/bin/sleep, 10]`,
    a shell's `sleep 5 && sleep 1m`. Anything else is not known and counts nothing."""
    sleep = pre_stop(container).get("sleep")
    seconds = sleep.get("seconds", 0) if isinstance(sleep, dict) else 0
    told = _SLEEP.findall(pre_stop_command(container))
    return float(seconds) + sum(float(number) * _UNITS[unit] for number, unit in told)


def grace_s(pod: Document) -> float:
    """Seconds from the pod's deletion to SIGKILL."""
    given = pod.get("terminationGracePeriodSeconds")
    return float(GRACE_DEFAULT_S if given is None else given)
