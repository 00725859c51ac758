"""FastAPI on uvicorn (uvloop, httptools): one process, no batching, the engine in a thread."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import computing
import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()
session = computing.make_session()
engine = ThreadPoolExecutor(1)


def compute(body: bytes) -> bytes:
    return computing.encode(computing.run(session, [computing.decode(body)])[0])


@app.post("/inference")
async def inference(request: Request) -> Response:
    body = await request.body()
    content = await asyncio.get_running_loop().run_in_executor(engine, compute, body)
    kind = "application/json" if computing.IS_JSON else "application/octet-stream"
    return Response(content, media_type=kind)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=computing.PORT, log_level="warning")
