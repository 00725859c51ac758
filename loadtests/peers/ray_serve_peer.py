"""Plain Ray Serve: one replica with `@serve.batch` (1 ms) behind its own HTTP proxy."""

from __future__ import annotations

import os
import signal

# Given to the replica's process by Ray, which starts it elsewhere.
os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))

import computing
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.1})
class Model:
    def __init__(self) -> None:
        self.session = computing.make_session()

    @serve.batch(max_batch_size=computing.MAX_BATCH_SIZE, batch_wait_timeout_s=0.001)
    async def infer(self, bodies: list[bytes]) -> list[bytes]:
        rows = [computing.decode(body) for body in bodies]
        return [computing.encode(row) for row in computing.run(self.session, rows)]

    async def __call__(self, request: Request) -> Response:
        content = await self.infer(await request.body())
        kind = "application/json" if computing.IS_JSON else "application/octet-stream"
        return Response(content, media_type=kind)


if __name__ == "__main__":
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={
            "env_vars": {
                "PEER_WORK": os.environ["PEER_WORK"],
                "PYTHONPATH": os.environ["PYTHONPATH"],
            }
        },
    )
    serve.start(http_options={"host": "127.0.0.1", "port": computing.PORT})
    serve.run(Model.bind(), name="peer", route_prefix="/inference")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
