"""Over torch.distributed's point-to-point operations: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from actors.sharding.channels.message import (
    Message,
    decode_head,
    head_of,
    message_of,
)
from cluster.errors import ShardLost

_HEAD_BYTES = 4096
_NAMES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


class CollectiveChannel:
    """`peer`: the other end's rank. The head has a fixed size, since a receiver of this transport
    must know sizes beforehand."""

    def __init__(self, peer: int, group: Any, device: torch.device) -> None:
        self._peer = peer
        self._group = group
        self._device = device

    def send(self, message: Message) -> None:
        tensors = {name: self._tensor(value) for name, value in message.values.items()}
        shells: dict[str, Any] = {name: _Shell(value) for name, value in tensors.items()}
        data = head_of(message, shells)
        if len(data) > _HEAD_BYTES - 4:
            raise ShardLost(f"a head of {len(data)} bytes does not fit")
        head = np.zeros(_HEAD_BYTES, np.uint8)
        head[:4] = np.frombuffer(len(data).to_bytes(4, "little"), np.uint8)
        head[4 : 4 + len(data)] = np.frombuffer(data, np.uint8)
        try:
            dist.send(torch.from_numpy(head).to(self._device), self._peer, group=self._group)
            for tensor in tensors.values():
                dist.send(tensor, self._peer, group=self._group)
        except RuntimeError as error:
            raise ShardLost(f"the next shard is gone: {_first_line(error)}") from None

    def receive(self) -> Message:
        head_bytes = torch.empty(_HEAD_BYTES, dtype=torch.uint8, device=self._device)
        try:
            dist.recv(head_bytes, self._peer, group=self._group)
            raw = head_bytes.cpu().numpy().tobytes()
            head = decode_head(raw[4 : 4 + int.from_bytes(raw[:4], "little")])
            values = {}
            for tensor in head.tensors:
                into = torch.empty(tensor.shape, dtype=_NAMES[tensor.dtype], device=self._device)
                dist.recv(into, self._peer, group=self._group)
                values[tensor.name] = into
        except RuntimeError as error:
            raise ShardLost(f"the shard before is gone: {_first_line(error)}") from None
        return message_of(head, values)

    def close(self) -> None:
        """The group ends with its processes."""

    def _tensor(self, value: Any) -> torch.Tensor:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        found: torch.Tensor = value.to(self._device).contiguous()
        return found


class _Shell:
    """A tensor as a head describes it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        name = str(tensor.dtype).removeprefix("torch.")
        self.dtype = type("dtype", (), {"name": name})
        self.shape = tuple(tensor.shape)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
