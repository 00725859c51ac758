"""Pods on one machine: network, process and mount namespaces of Linux, as containers have them.

A pod has an address of its own, sees its own processes only and has its own /tmp and /dev/shm, so
that several Ray nodes run beside each other on their usual ports and `ray stop` in one of them
reaches nothing else. All of it lives inside one outer `unshare`: no privileges are needed where
user namespaces are allowed, and everything ends with the program that began it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "SQUADRON_FLEET_INSIDE"
BRIDGE_ADDRESS = "10.77.0.1"
KEPT = "/mnt"
"""Where a pod finds its claim: what outlives the pod."""

_UNSHARE = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def _outside() -> dict[str, str]:
    """What a pod has of this program's environment: nothing that steers Ray or the metrics."""
    steering = ("RAY_", "PROMETHEUS_", "SQUADRON_")
    return {n: v for n, v in os.environ.items() if n == INSIDE or not n.startswith(steering)}


def why_not() -> str:
    """What this machine lacks for pods; empty when there is nothing."""
    missing = [name for name in ("unshare", "ip", "mount", "bash") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: util-linux, iproute2)"
    probe = ["unshare", "--user", "--map-root-user", "--net", *_UNSHARE]
    script = "mount -t tmpfs run /run && ip link add probe type bridge && ip netns add probe"
    done = subprocess.run([*probe, "bash", "-c", script], capture_output=True, text=True)
    if done.returncode:
        return f"no namespaces here: {done.stderr.strip().splitlines()[-1:]}"
    if ROOT.is_relative_to("/tmp"):
        return f"{ROOT} lies in /tmp, where pods see their own files only"
    return ""


def enter(module: str, arguments: list[str]) -> None:
    """This program again, inside namespaces of its own; returns only there."""
    if os.environ.get(INSIDE):
        _make_bridge()
        return
    reason = why_not()
    if reason:
        raise SystemExit(reason)
    os.environ[INSIDE] = "1"
    command = ["unshare", "--user", "--map-root-user", "--net", *_UNSHARE]
    os.execvp("unshare", [*command, sys.executable, "-m", module, *arguments])


def _make_bridge() -> None:
    # `ip netns` keeps its names there; ours are nobody else's.
    _ip("mount", "-t", "tmpfs", "run", "/run")
    _ip("ip", "link", "set", "lo", "up")
    _ip("ip", "link", "add", "pods", "type", "bridge")
    _ip("ip", "addr", "add", f"{BRIDGE_ADDRESS}/24", "dev", "pods")
    _ip("ip", "link", "set", "pods", "up")


def _ip(*command: str) -> None:
    subprocess.run(command, check=True)


class Pod:
    """One container. `address` stays its own; `start` may be called again after its end."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._outer: subprocess.Popen[bytes] | None = None
        self._started: tuple[list[str], Mapping[str, str]] = ([], {})
        self.pid = 0
        """Of the container's first process, as seen from outside."""
        _ip("ip", "netns", "add", name)
        _ip("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("ip", "link", "set", f"v-{name}", "master", "pods", "up")
        _ip("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("ip", "-n", name, "link", "set", device, "up")

    def start(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Run `command` as the first process of a fresh container; the claim is as it was."""
        self._started = (command, environment)
        fresh = self._folder / f"{self.name}-{time.monotonic_ns()}"
        claim = self._folder / f"{self.name}-claim"
        for folder in (fresh, claim):
            folder.mkdir(exist_ok=True)
        script = (
            f"mount --bind {claim} {KEPT} && mount --bind {fresh} /tmp && "
            'mount -t tmpfs -o mode=1777 shm /dev/shm && exec "$@"'
        )
        inner = ["unshare", *_UNSHARE, "bash", "-c", script, "bash", *command]
        with self.log.open("ab") as log:
            self._outer = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *inner],
                cwd=ROOT,
                env={**_outside(), "HOME": "/tmp", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        outer = psutil.Process(self._outer.pid)
        while not (children := outer.children()):
            if self._outer.poll() is not None:
                raise RuntimeError(f"pod {self.name} ended at once: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        self.pid = children[0].pid

    def start_again(self) -> None:
        """As the kubelet does with a container that ended by itself."""
        self.start(*self._started)

    def run(self, command: list[str], environment: Mapping[str, str] | None = None) -> str:
        """A command inside, as `kubectl exec` and a preStop hook run it; its output."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--"]
        done = subprocess.run(
            [*inside, *command],
            env={**_outside(), "HOME": "/tmp", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    @property
    def is_running(self) -> bool:
        return self._outer is not None and self._outer.poll() is None

    def send(self, what: signal.Signals) -> None:
        """To the first process, as the kubelet does. SIGKILL ends the whole container."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, what)

    def wait(self, patience_s: float) -> bool:
        """Whether it has ended within that time."""
        assert self._outer is not None
        try:
            self._outer.wait(patience_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def processes(self) -> list[psutil.Process]:
        if not self.is_running:
            return []
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


def title_of(process: psutil.Process) -> str:
    """Its command line; empty when it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
