"""Triton 2.51 from the PyTriton wheel: its C++ server, the model in its Python backend (1 ms)."""

from __future__ import annotations

import computing
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

session = computing.make_session()


@batch
def infer(**inputs: np.ndarray) -> list[np.ndarray]:
    return [session.run([computing.OUTPUT], inputs)[0]]


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=computing.PORT,
        grpc_address="127.0.0.1",
        grpc_port=computing.WORK["grpc_port"],
        allow_metrics=False,
        http_thread_count=8,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=computing.WORK["name"],
            infer_func=infer,
            inputs=[
                Tensor(name=spec["name"], dtype=np.dtype(spec["dtype"]), shape=tuple(spec["shape"]))
                for spec in computing.INPUTS
            ],
            outputs=[
                Tensor(
                    name=computing.OUTPUT,
                    dtype=np.float32,
                    shape=tuple(computing.WORK["output_shape"]),
                )
            ],
            config=ModelConfig(
                max_batch_size=computing.MAX_BATCH_SIZE,
                batcher=DynamicBatcher(max_queue_delay_microseconds=1000),
            ),
        )
        triton.serve()
