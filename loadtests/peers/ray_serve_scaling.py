"""Plain Ray Serve with its own autoscaling: a model that waits, one request at a time a replica.

python ray_serve_scaling.py PORT SECONDS_A_REQUEST MAX_REPLICAS
"""

from __future__ import annotations

import asyncio
import signal
import sys

import ray
from ray import serve

PORT, SERVICE_S, MAX_REPLICAS = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])


@serve.deployment(
    max_ongoing_requests=1024,
    autoscaling_config={"min_replicas": 1, "max_replicas": MAX_REPLICAS},
    ray_actor_options={"num_cpus": 0.1},
)
class Model:
    def __init__(self, service_s: float) -> None:
        self.service_s = service_s
        self.turn = asyncio.Lock()

    async def __call__(self) -> str:
        async with self.turn:
            await asyncio.sleep(self.service_s)
        return "done"


if __name__ == "__main__":
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Model.bind(SERVICE_S), name="peer", route_prefix="/scaled")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
