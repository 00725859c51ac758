"""Layers beyond a memory cap stay out and come in one ahead of their turn.

Out means in the files (on a CPU, in pages that are the system's and not this process's) or in host
memory (of a GPU). While a layer computes, a thread brings in the next one that is out; after its
turn a layer's weights are let go again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

Loaded = list[tuple[nn.Module, str, nn.Parameter]]
ReadLayer = Callable[[int], Loaded]


def stream_layers(layers: nn.ModuleList, read: ReadLayer, cap_bytes: int) -> int:
    """Fill as many layers as fit for good and hook the others; returns how many stay.

    Two of those that are out may be in at once (one computes, one comes).
    """
    sizes = [sum(p.numel() * p.element_size() for p in layer.parameters()) for layer in layers]
    num_staying = len(layers)
    while num_staying and not _fits(sizes, num_staying, cap_bytes):
        num_staying -= 1
    for index in range(num_staying):
        _put(read(index))
    if num_staying < len(layers):
        _Stream(layers, read, num_staying)
    return num_staying


def _fits(sizes: list[int], num_staying: int, cap_bytes: int) -> bool:
    out = sizes[num_staying:]
    # After the last one comes the first of them again, for the next token.
    following = out[1:] + (out[:1] if len(out) > 1 else [0])
    pairs = [a + b for a, b in zip(out, following, strict=False)]
    return sum(sizes[:num_staying]) + max(pairs, default=0) <= cap_bytes


class _Stream:
    """Hooks on the layers from `first` on."""

    def __init__(self, layers: nn.ModuleList, read: ReadLayer, first: int) -> None:
        self._layers = layers
        self._first = first
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._coming: dict[int, Future[Loaded]] = {}
        # On a GPU the weights wait in host memory; on a CPU in the files' page cache.
        device = next(iter(read(first)))[2].device
        self._read = _from_host(read, device) if device.type == "cuda" else read
        for index in range(first, len(layers)):
            layers[index].register_forward_pre_hook(self._bring_in(index))
            layers[index].register_forward_hook(self._let_go(index))

    def _bring_in(self, index: int) -> Callable[..., None]:
        following = index + 1 if index + 1 < len(self._layers) else self._first

        def hook(_: nn.Module, __: Any) -> None:
            coming = self._coming.pop(index, None) or self._thread.submit(self._read, index)
            _put(coming.result())
            if following != index and following not in self._coming:
                self._coming[following] = self._thread.submit(self._read, following)

        return hook

    def _let_go(self, index: int) -> Callable[..., None]:
        def hook(layer: nn.Module, *_: Any) -> None:
            for module in layer.modules():
                for name, value in module._parameters.items():
                    if value is not None:
                        empty = torch.empty(value.shape, dtype=value.dtype, device="meta")
                        module._parameters[name] = nn.Parameter(empty, requires_grad=False)

        return hook


def _put(loaded: Loaded) -> None:
    for module, name, value in loaded:
        module._parameters[name] = value


def _from_host(read: ReadLayer, device: torch.device) -> ReadLayer:
    """Reads each layer's file once; afterwards its pinned copy is sent to the GPU."""
    kept: dict[int, Loaded] = {}
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def read_again(index: int) -> Loaded:
        if index not in kept:
            kept[index] = [
                (module, name, nn.Parameter(value.cpu().pin_memory(), requires_grad=False))
                for module, name, value in read(index)
            ]
        with torch.cuda.stream(stream):
            sent: Loaded = [
                (m, n, nn.Parameter(v.to(device, non_blocking=True), requires_grad=False))
                for m, n, v in kept[index]
            ]
        stream.synchronize()
        for _, _, value in sent:
            # Let go while kernels that read it are under way, its memory must wait for them.
            value.record_stream(torch.cuda.default_stream(device))
        return sent

    return read_again
