"""gRPC, closed loop: N calls under way on one channel, and a bare `grpc.aio` server to set it by.

    python -m loadtests.grpc_load --serve --port 18100      the bare server, identity only

It parses the request, runs the model and serialises the answer; no routing, no checks, no batches.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from typing import Any

import grpc
import numpy as np

from cluster.protocols.grpc_schema import SERVICE, message_class
from loadtests.generator import Load
from loadtests.latencies import new_histogram
from loadtests.usage import Watched, cpu_us_per_request
from loadtests.works import WORKS, Work

METHOD = f"/{SERVICE}/ModelInfer"


def grpc_request(work: Work) -> bytes:
    """A ModelInferRequest with raw input contents, serialised."""
    message = message_class("inference.ModelInferRequest")()
    message.model_name = work.name
    for name, array in work.inputs().items():
        tensor = message.inputs.add()
        tensor.name, tensor.shape[:] = name, array.shape
        tensor.datatype = {"float32": "FP32", "int64": "INT64"}[str(array.dtype)]
        message.raw_input_contents.append(array.tobytes())
    return bytes(message.SerializeToString())


async def grpc_closed_loop(
    port: int, request: bytes, *, calls: int, seconds: float, watched: Watched
) -> Load:
    """Statuses: 200 for OK, else the gRPC code."""
    statuses: Counter[int] = Counter()
    histogram = new_histogram()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer: Any = channel.unary_unary(METHOD)
        await infer(request)
        before, generator_s = watched.read(), time.process_time()
        started_s = time.perf_counter()

        async def caller() -> None:
            while (sent_s := time.perf_counter()) < started_s + seconds:
                try:
                    await infer(request)
                except grpc.aio.AioRpcError as error:
                    statuses[error.code().value[0]] += 1
                    continue
                statuses[200] += 1
                histogram.record_value(max(1, int((time.perf_counter() - sent_s) * 1e6)))

        await asyncio.gather(*(caller() for _ in range(calls)))
        took_s = time.perf_counter() - started_s
        generator_s = time.process_time() - generator_s
        after = watched.read()
    return Load(
        seconds=took_s,
        num_sent=sum(statuses.values()),
        num_good=statuses[200],
        statuses=dict(statuses),
        histogram=histogram,
        cpu_us=cpu_us_per_request(before, after, sum(statuses.values())),
        generator_cores=generator_s / took_s,
    )


async def serve_bare(port: int) -> None:
    import onnxruntime

    from loadtests.servers import model_file

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = str(model_file(WORKS["identity"]))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    request_class = message_class("inference.ModelInferRequest")
    response_class = message_class("inference.ModelInferResponse")

    async def infer(content: bytes, context: object) -> bytes:
        request = request_class.FromString(content)
        tensor = request.inputs[0]
        array = np.frombuffer(request.raw_input_contents[0], np.float32)
        output = session.run(["y"], {"x": array.reshape(tuple(tensor.shape))})[0]
        response = response_class(model_name=request.model_name)
        made = response.outputs.add()
        made.name, made.datatype, made.shape[:] = "y", "FP32", output.shape
        response.raw_output_contents.append(output.tobytes())
        return bytes(response.SerializeToString())

    server = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--serve", action="store_true", required=True)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve_bare(parser.parse_args().port))


if __name__ == "__main__":
    main()
