"""A small cluster of pods on this machine, and what Kubernetes does to it.

    python -m loadtests.fleet drain                    a worker is deleted under 10,000 requests
    python -m loadtests.fleet drain --hook ray-stop    the same with the hook of upstream's samples

    python -m loadtests.fleet head --storage redis     the head is killed and comes back
    python -m loadtests.fleet scrape                   what Prometheus gets from two nodes

Needs Linux with user namespaces; nothing outside them is touched. One JSON object a scenario.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from loadtests.fleet import pods
from loadtests.fleet.cluster import fleet, store_of
from loadtests.fleet.drain import drain
from loadtests.fleet.head import lose_the_head, storage_environment
from loadtests.fleet.scrape import scrape
from loadtests.fleet.service import Load


def main() -> None:
    asked = _asked()
    pods.enter("loadtests.fleet", sys.argv[1:])
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="squadron-fleet-"))
    folder.mkdir(exist_ok=True, parents=True)
    print(f"logs in {folder}", file=sys.stderr)
    store = store_of(asked.store)
    if asked.scenario == "drain":
        load = Load(num_requests=asked.requests, rate_per_s=asked.rate)
        with fleet(folder, store, num_workers=2, manifest=asked.manifest) as made:
            found = asyncio.run(
                drain(made, hook=asked.hook, load=load, endpoint_delay_s=asked.endpoint_delay)
            )
    elif asked.scenario == "head":
        environment, redis = storage_environment(asked.storage, folder)
        try:
            with fleet(
                folder, store, num_workers=1, head_storage=environment, is_controlled=True
            ) as made:
                away = lose_the_head(made, rate_per_s=asked.rate, away_s=asked.away)
                found = {"storage": asked.storage, **asyncio.run(away)}
        finally:
            if redis is not None:
                redis.send(signal.SIGKILL)
    else:
        with fleet(folder, store, num_workers=2) as made:
            found = asyncio.run(scrape(made, num_requests=asked.requests))
    print(json.dumps(found), flush=True)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=["drain", "head", "scrape"])
    parser.add_argument("--store", type=Path, help="the models (default: models)")
    parser.add_argument("--folder", type=Path, help="where logs stay (default: a new one)")
    parser.add_argument("--manifest", type=Path, help="a RayService or overlay (default: the base)")
    parser.add_argument("--hook", choices=["manifests", "ray-stop"], default="manifests")
    parser.add_argument("--storage", choices=["rocksdb", "redis"], default="rocksdb")
    parser.add_argument("--away", type=float, default=15.0, help="seconds without a head")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=120.0, help="requests a second")
    parser.add_argument("--endpoint-delay", type=float, default=2.0, help="seconds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
