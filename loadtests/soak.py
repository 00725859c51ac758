"""Many requests at a fixed concurrency: is any lost, and what do they cost?

    python -m loadtests.soak --requests 10000 --concurrency 32 [--model sentiment] [--json]

A closed loop (each of N callers sends its next request when the last one is answered), so it finds
lost requests and capacity, not latency under a given load. Start a server first (`make serve`), or
give its address with `--url`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx

TEXTS = (
    "a warm, funny and engaging film",
    "dull, lifeless and far too long",
    "the acting is superb and the story moves",
    "i want those two hours of my life back",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """`statuses` counts HTTP statuses (0: no answer). Latencies in milliseconds."""

    num_requests: int
    num_lost: int
    statuses: dict[int, int]
    seconds: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def body_for(model: str, number: int, photo: bytes) -> tuple[bytes, dict[str, str]]:
    """A request body and its headers: a photo for the photo models, else one sentence."""
    if model.startswith("photo"):
        return photo, {"content-type": "image/png"}
    text = TEXTS[number % len(TEXTS)]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
    return json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"}


async def soak(
    url: str, model: str, *, num_requests: int, concurrency: int, photo: bytes = b""
) -> Soak:
    """Send `num_requests` to one model; every answer other than 200 counts as lost."""
    numbers = iter(range(num_requests))
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:

        async def caller() -> None:
            for number in numbers:
                content, headers = body_for(model, number, photo)
                started_s = time.perf_counter()
                try:
                    answer = await client.post(
                        f"/v2/models/{model}/infer", content=content, headers=headers
                    )
                    statuses[answer.status_code] += 1
                except httpx.HTTPError:
                    statuses[0] += 1
                latencies.append((time.perf_counter() - started_s) * 1000)

        started_s = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(concurrency)))
        seconds = time.perf_counter() - started_s
    latencies.sort()
    return Soak(
        num_requests=num_requests,
        num_lost=num_requests - statuses[200],
        statuses=dict(statuses),
        seconds=seconds,
        requests_per_s=num_requests / seconds,
        p50_ms=latencies[len(latencies) // 2],
        p99_ms=latencies[int(len(latencies) * 0.99)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="sentiment")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--photo", default="models/.samples/scikit-image/chelsea.png")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args()
    photo = Path(asked.photo).read_bytes() if asked.model.startswith("photo") else b""
    result = asyncio.run(
        soak(
            asked.url,
            asked.model,
            num_requests=asked.requests,
            concurrency=asked.concurrency,
            photo=photo,
        )
    )
    if asked.json:
        print(json.dumps({name: getattr(result, name) for name in Soak.__slots__}))
        return
    print(
        f"{result.num_requests} requests at {asked.concurrency}: {result.num_lost} lost, "
        f"{result.requests_per_s:.0f} a second, p50 {result.p50_ms:.1f} ms, "
        f"p99 {result.p99_ms:.1f} ms; statuses {result.statuses}"
    )


if __name__ == "__main__":
    main()
