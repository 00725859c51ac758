"""The four pieces of work: what a request carries, for servers that speak V2 and for the others.

`identity` is JSON everywhere, the same bytes for every server. The tensors of the others are too
large for JSON to be anybody's choice: V2's binary tensors where a server speaks V2, else the bare
bytes of the tensors one after the other, which is the cheapest a hand-written server can do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

WorkName = Literal["identity", "identity-1mb", "minilm-int8", "efficientnet-lite0"]
Encoding = Literal["json", "binary"]
DATATYPES = {"float32": "FP32", "int64": "INT64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A request body with its headers."""

    content: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`source` is the model in the store, `max_batch_size` what every server may batch.

    `encoding` is the one compared with peers.
    """

    name: WorkName
    source: str
    output: str
    max_batch_size: int
    encoding: Encoding

    def inputs(self) -> dict[str, npt.NDArray[np.generic]]:
        """One row of each input, always the same values."""
        draw = np.random.default_rng(0)
        match self.name:
            case "identity":
                return {"x": np.round(draw.random((1, 16), dtype=np.float32), 3)}
            case "identity-1mb":
                return {"x": draw.random((1, 262_144), dtype=np.float32)}
            case "minilm-int8":
                ids = draw.integers(1000, 20_000, (1, 32), dtype=np.int64)
                ones, zeros = np.ones((1, 32), np.int64), np.zeros((1, 32), np.int64)
                return {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}
            case "efficientnet-lite0":
                return {"image": draw.standard_normal((1, 3, 224, 224), dtype=np.float32)}

    def v2(self, encoding: Encoding | None = None, *, timeout_us: int = 0) -> Body:
        """`timeout_us`: the server may drop what it cannot answer in that time (0: unsaid)."""
        tensors, blobs = [], []
        is_binary = (encoding or self.encoding) == "binary"
        for name, array in self.inputs().items():
            tensor: dict[str, object] = {
                "name": name,
                "datatype": DATATYPES[str(array.dtype)],
                "shape": list(array.shape),
            }
            if is_binary:
                tensor["parameters"] = {"binary_data_size": array.nbytes}
                blobs.append(array.tobytes())
            else:
                tensor["data"] = [
                    float(v) if array.dtype.kind == "f" else int(v) for v in array.flat
                ]
            tensors.append(tensor)
        content: dict[str, object] = {"inputs": tensors}
        parameters: dict[str, object] = {"timeout": timeout_us} if timeout_us else {}
        if is_binary:
            parameters["binary_data_output"] = True
        if parameters:
            content["parameters"] = parameters
        head = json.dumps(content, separators=(",", ":")).encode()
        if not is_binary:
            return Body(content=head, headers={"content-type": "application/json"})
        return Body(
            content=head + b"".join(blobs),
            headers={
                "content-type": "application/octet-stream",
                "inference-header-content-length": str(len(head)),
            },
        )

    def bare(self) -> Body:
        """For servers that are written by hand around the model."""
        if self.encoding == "json":
            return self.v2("json")
        content = b"".join(array.tobytes() for array in self.inputs().values())
        return Body(content=content, headers={"content-type": "application/octet-stream"})


WORKS: dict[str, Work] = {
    work.name: work
    for work in (
        Work(name="identity", source="identity", output="y", max_batch_size=64, encoding="json"),
        Work(
            name="identity-1mb",
            source="identity-1mb",
            output="y",
            max_batch_size=8,
            encoding="binary",
        ),
        Work(
            name="minilm-int8",
            source="all-minilm-l6-v2-int8",
            output="last_hidden_state",
            max_batch_size=32,
            encoding="binary",
        ),
        Work(
            name="efficientnet-lite0",
            source="efficientnet-lite0",
            output="logits",
            max_batch_size=8,
            encoding="binary",
        ),
    )
}
