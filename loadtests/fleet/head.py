"""The head's container is killed and comes back; its state lies in an embedded RocksDB or a Redis.

Meanwhile the doors on the workers answer. Afterwards everything that was set while it ran must be
there again: weights, counts, a model that was loaded, and a control plane that replaces a replica.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from loadtests.fleet.cluster import Fleet
from loadtests.fleet.pods import KEPT, Pod, title_of
from loadtests.fleet.service import Load, Service, Tally

Storage = Literal["rocksdb", "redis"]
REDIS_ADDRESS = "10.77.0.3"
EXPERIMENT = "trial"
LOADED = "identity"
WEIGHTS = {"arm-a": 70.0, "arm-b": 30.0}
OTHER_WEIGHTS = {"arm-a": 60.0, "arm-b": 40.0}

_ASK = """
import sys, urllib.request
method, url, body = sys.argv[1:]
asked = urllib.request.Request(url, data=body.encode() or None, method=method)
asked.add_header("content-type", "application/json")
answer = urllib.request.urlopen(asked, timeout=30)
if "age" in answer.headers:
    sys.exit("the controller is away: this is what the door heard last")
print(answer.read().decode())
"""


def storage_environment(storage: Storage, folder: Path) -> tuple[dict[str, str], Pod | None]:
    """What the operator puts into the head's environment, and Redis' own pod where there is one."""
    if storage == "rocksdb":
        return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": f"{KEPT}/gcs"}, None
    password = secrets.token_hex(16)
    pod = Pod("redis", REDIS_ADDRESS, folder)
    lines = [f"requirepass {password}", "appendonly yes", "appendfsync everysec", f"dir {KEPT}"]
    lines += ["bind 0.0.0.0", "port 6379"]
    claim = folder / "redis-claim"
    claim.mkdir()
    (claim / "redis.conf").write_text("\n".join(lines))
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("no redis-server on this machine (Debian: apt-get install redis-server)")
    pod.start([program, f"{KEPT}/redis.conf"], {})
    return {
        "RAY_REDIS_ADDRESS": f"redis://{REDIS_ADDRESS}:6379",
        "REDIS_PASSWORD": password,
        "RAY_external_storage_namespace": secrets.token_hex(8),
    }, pod


async def lose_the_head(fleet: Fleet, *, rate_per_s: float, away_s: float) -> dict[str, object]:
    """Times are seconds since the head's container was started again."""
    door = fleet.workers[0]
    _set_state(fleet, door)
    counted_before = _counted(door)
    service = Service({pod.address for pod in fleet.workers}, random.Random(1))
    tally = Tally()
    is_over = asyncio.Event()
    load = Load(num_requests=10**9, rate_per_s=rate_per_s, num_slow=2)
    running = asyncio.create_task(load.run(service, tally, lambda _: None, is_over))
    await asyncio.sleep(3)
    sent_before = tally.sent
    fleet.head.send(signal.SIGKILL)
    await asyncio.to_thread(fleet.head.wait, 30)
    await asyncio.sleep(away_s)
    sent_while_away = tally.sent - sent_before
    failed_while_away = tally.num_failed
    began_s = time.monotonic()
    found = await asyncio.to_thread(_come_back, fleet, door, counted_before, began_s)
    await asyncio.sleep(2)
    is_over.set()
    await running
    return {
        "away_s": away_s,
        "requests": tally.sent,
        "sent_while_away": sent_while_away,
        "failed": tally.num_failed,
        "failed_while_away": failed_while_away,
        "failures": dict(tally.failed),
        "longest_answered_s": round(tally.longest_s, 2),
        **found,
    }


def _set_state(fleet: Fleet, door: Pod) -> None:
    ask(door, "POST", f"/v2/repository/models/{LOADED}/load")
    ask(door, "PUT", f"/admin/v1/experiments/{EXPERIMENT}/weights", WEIGHTS)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    for _ in range(20):
        ask(door, "POST", f"/v2/models/{EXPERIMENT}/infer", {"inputs": [tensor]})
    fleet.until(lambda: _counted(door) >= 20, "the experiment counted nothing", 30)


def _come_back(fleet: Fleet, door: Pod, counted: int, began_s: float) -> dict[str, object]:
    def since() -> float:
        return round(time.monotonic() - began_s, 1)

    fleet.start_head()
    fleet.has_started()
    found: dict[str, object] = {"dashboard_s": since()}
    fleet.until(lambda: _all_running(fleet), "an application does not run")
    found["applications_s"] = since()
    fleet.until(lambda: _weights(door) == WEIGHTS, "the weights are not back")
    found["weights_s"] = since()
    found["counted_before"], found["counted_after"] = counted, _counted(door)
    ask(door, "GET", f"/v2/models/{LOADED}/ready")
    fleet.until(lambda: _changed(door), "the weights cannot be changed")
    found["changed_s"] = since()
    replica = next(
        process for process in door.processes() if "variant-sentiment-head" in title_of(process)
    )
    replica.kill()
    killed_s = time.monotonic()
    fleet.until(lambda: _has_another(door, replica.pid), "the killed replica is not replaced")
    found["replica_replaced_after_s"] = round(time.monotonic() - killed_s, 1)
    return found


def _has_another(door: Pod, pid: int) -> bool:
    titles = {process.pid: title_of(process) for process in door.processes()}
    return any("variant-sentiment-head" in title for own, title in titles.items() if own != pid)


def _all_running(fleet: Fleet) -> bool:
    import httpx

    try:
        found = fleet.applications()
    except httpx.HTTPError:
        return False
    return bool(found) and all(each["status"] == "RUNNING" for each in found.values())


def _changed(door: Pod) -> bool:
    try:
        ask(door, "PUT", f"/admin/v1/experiments/{EXPERIMENT}/weights", OTHER_WEIGHTS)
    except RuntimeError:
        return False
    return _weights(door) == OTHER_WEIGHTS


def _weights(door: Pod) -> dict[str, float]:
    try:
        seen = ask(door, "GET", f"/admin/v1/experiments/{EXPERIMENT}")
    except RuntimeError:
        return {}
    return {arm["name"]: float(arm["weight"]) for arm in seen["arms"]}


def _counted(door: Pod) -> int:
    seen = ask(door, "GET", f"/admin/v1/experiments/{EXPERIMENT}")
    return sum(int(arm["requests"]) for arm in seen["arms"])


def ask(door: Pod, method: str, path: str, body: object = None) -> Any:
    """From the pod itself: what changes the server is answered on loopback. Raises: RuntimeError
    for anything but success."""
    url = f"http://127.0.0.1:8000{path}"
    text = json.dumps(body) if body is not None else ("{}" if method == "POST" else "")
    inside = ["nsenter", f"--target={door.pid}", "--net", "--"]
    done = subprocess.run(
        [*inside, sys.executable, "-c", _ASK, method, url, text],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{method} {path}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout) if done.stdout.strip() else None
