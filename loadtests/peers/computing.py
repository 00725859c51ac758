"""What every peer does with a request, so that they differ in serving only.

Runs in the peers' own environments (numpy, onnxruntime, orjson where it is there), so it imports
nothing of Squadron. What to serve comes in `PEER_WORK`, a JSON object that the harness writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import numpy as np
import onnxruntime

try:
    from orjson import dumps, loads
except ImportError:
    loads = json.loads

    def dumps(value: object) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()


WORK = json.loads(os.environ["PEER_WORK"])
PORT: int = WORK["port"]
MAX_BATCH_SIZE: int = WORK["max_batch_size"]
IS_JSON: bool = WORK["encoding"] == "json"
INPUTS: list[dict] = WORK["inputs"]
OUTPUT: str = WORK["output"]

Row = tuple[np.ndarray, ...]


def make_session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = WORK["threads"]
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(WORK["path"], options, providers=["CPUExecutionProvider"])


def decode(body: bytes) -> Row:
    """One row of every input, without the batch dimension."""
    if IS_JSON:
        return decode_json(loads(body))
    row, start = [], 0
    for spec in INPUTS:
        size = spec["num_bytes"]
        array = np.frombuffer(body, spec["dtype"], count=spec["count"], offset=start)
        row.append(array.reshape(spec["shape"]))
        start += size
    return tuple(row)


def decode_json(content: dict) -> Row:
    tensors = content["inputs"]
    return tuple(
        np.asarray(tensor["data"], spec["dtype"]).reshape(spec["shape"])
        for tensor, spec in zip(tensors, INPUTS, strict=True)
    )


def run(session: onnxruntime.InferenceSession, rows: Sequence[Row]) -> np.ndarray:
    feeds = {
        spec["name"]: np.stack([row[place] for row in rows]) for place, spec in enumerate(INPUTS)
    }
    return session.run([OUTPUT], feeds)[0]


def encode(row: np.ndarray) -> bytes:
    return dumps(encode_json(row)) if IS_JSON else row.tobytes()


def encode_json(row: np.ndarray) -> dict:
    shape = [1, *row.shape]
    tensor = {"name": OUTPUT, "datatype": "FP32", "shape": shape, "data": row.ravel().tolist()}
    return {"model_name": WORK["name"], "outputs": [tensor]}
