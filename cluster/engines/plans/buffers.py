"""Pinned memory of the host and memory of the GPU for a plan's tensors, by torch's allocators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cluster.tensors import NUMPY_DTYPES, Array, TensorSpec

TORCH_DTYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "FP32": torch.float32,
}
"""What TensorRT 10's tensors can be."""


class TensorBuffer:
    """One tensor's memory on both sides; it grows to the largest batch and stays."""

    def __init__(self, spec: TensorSpec, device: torch.device) -> None:
        self._dtype = TORCH_DTYPES[spec.datatype]
        self._numpy = NUMPY_DTYPES[spec.datatype]
        self._device = device
        self._on_host = torch.empty(0, dtype=self._dtype)
        self._on_device = torch.empty(0, dtype=self._dtype, device=device)

    @property
    def address(self) -> int:
        return int(self._on_device.data_ptr())

    def reserve(self, num: int) -> None:
        """Room for so many elements (at least one: TensorRT refuses a null address)."""
        num = max(1, num)
        if self._on_device.numel() < num:
            pinned = self._device.type == "cuda"
            self._on_host = torch.empty(num, dtype=self._dtype, pin_memory=pinned)
            self._on_device = torch.empty(num, dtype=self._dtype, device=self._device)

    def put(self, array: Array) -> None:
        """To the device, on the current stream."""
        self.reserve(array.size)
        host = self._on_host[: array.size]
        self._bits(host)[...] = np.ascontiguousarray(array).reshape(-1).view(self._bit_type())
        self._on_device[: array.size].copy_(host, non_blocking=True)

    def fetch(self, num: int) -> None:
        """To the host, on the current stream; `read` after it was synchronised."""
        self._on_host[:num].copy_(self._on_device[:num], non_blocking=True)

    def read(self, shape: tuple[int, ...]) -> Array:
        """A copy that is the caller's."""
        num = int(np.prod(shape, dtype=np.int64))
        found: Array = self._bits(self._on_host[:num]).view(self._numpy).reshape(shape).copy()
        return found

    def _bits(self, tensor: torch.Tensor) -> Any:
        # numpy has no bfloat16 of its own: its bits travel as 16-bit integers.
        return (tensor.view(torch.int16) if self._dtype is torch.bfloat16 else tensor).numpy()

    def _bit_type(self) -> Any:
        return np.int16 if self._dtype is torch.bfloat16 else self._numpy
