"""Keys and values of the sequences that a torch model computes together.

One tensor a layer, `[slots, kv_heads, length, head_dim]`. Sequences lie in the first slots without
a gap, so that a step reads a view and copies nothing; whoever leaves is replaced by the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

FIRST_LENGTH = 256
FIRST_SLOTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Layers that see the last `num_tokens` alone, the newest one included: all, or some of them
    (`is_mixed`)."""

    num_tokens: int
    is_mixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KvShape:
    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    window: Window | None = None

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.itemsize


class KvSlots:
    """`grows`: reserved as sequences come and get longer; otherwise all at once."""

    def __init__(self, shape: KvShape, *, max_slots: int, max_length: int, grows: bool) -> None:
        self.shape = shape
        self.max_slots = max_slots
        self.max_length = max_length
        self.lengths: list[int] = []
        self._num_slots = min(FIRST_SLOTS, max_slots) if grows else max_slots
        self._length = min(FIRST_LENGTH, max_length) if grows else max_length
        self._keys = self._zeros()
        self._values = self._zeros()

    @property
    def num_bytes(self) -> int:
        return self._num_slots * self._length * self.shape.bytes_per_token

    def join(self) -> int:
        """A slot for one more sequence: the one after the last."""
        self.lengths.append(0)
        self._make_room(len(self.lengths), 0)
        return len(self.lengths) - 1

    def leave(self, slot: int) -> int:
        """The slot whose sequence lies in `slot` from now on (`slot` itself when it was last)."""
        last = len(self.lengths) - 1
        if slot != last:
            length = self.lengths[last]
            for layer in (*self._keys, *self._values):
                layer[slot, :, :length] = layer[last, :, :length]
            self.lengths[slot] = length
        self.lengths.pop()
        return last

    def copy(self, source: int, target: int, length: int) -> None:
        """The first tokens of a sequence are those of another one, which has none yet."""
        for layer in (*self._keys, *self._values):
            layer[target, :, :length] = layer[source, :, :length]
        self.lengths[target] = length

    def step_of_all(self) -> CacheStep:
        """Every sequence gets one token."""
        positions = list(self.lengths)
        self._make_room(len(positions), max(positions) + 1)
        for slot in range(len(positions)):
            self.lengths[slot] += 1
        return CacheStep(self, slice(0, len(positions)), positions, 1)

    def step_of_one(self, slot: int, num_tokens: int) -> CacheStep:
        """One sequence gets several tokens."""
        position = self.lengths[slot]
        self._make_room(len(self.lengths), position + num_tokens)
        self.lengths[slot] += num_tokens
        return CacheStep(self, slice(slot, slot + 1), [position], num_tokens)

    def layer(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._keys[index], self._values[index]

    def _make_room(self, num_slots: int, length: int) -> None:
        if num_slots <= self._num_slots and length <= self._length:
            return
        while self._num_slots < num_slots:
            self._num_slots = min(2 * self._num_slots, self.max_slots)
        while self._length < length:
            self._length = min(2 * self._length, self.max_length)
        self._keys = self._moved(self._keys)
        self._values = self._moved(self._values)

    def _moved(self, old: list[torch.Tensor]) -> list[torch.Tensor]:
        new = self._zeros()
        for into, layer in zip(new, old, strict=True):
            into[: layer.shape[0], :, : layer.shape[2]] = layer
        return new

    def _zeros(self) -> list[torch.Tensor]:
        shape = self.shape
        size = (self._num_slots, shape.num_kv_heads, self._length, shape.head_dim)
        return [
            torch.zeros(size, dtype=shape.dtype, device=shape.device)
            for _ in range(shape.num_layers)
        ]


class CacheStep:
    """One forward pass over some slots: what transformers asks of a cache, and the mask that goes
    with it. **Shapes:** `positions` `[rows, tokens]`, `mask` `[rows, 1, tokens, length]`."""

    is_compileable = False

    def __init__(self, slots: KvSlots, rows: slice, starts: list[int], num_tokens: int) -> None:
        device = slots.shape.device
        self._slots = slots
        self._rows = rows
        self._starts = starts
        self._num_tokens = num_tokens
        self._length = max(starts) + num_tokens
        first = torch.tensor(starts, device=device)
        self._row_index = torch.arange(len(starts), device=device)
        self._first = first
        self.positions = first[:, None] + torch.arange(num_tokens, device=device)[None, :]
        seen = torch.arange(self._length, device=device)[None, None, :]
        self.mask = (seen <= self.positions[:, :, None])[:, None]

    def masks(self) -> torch.Tensor | dict[str, torch.Tensor]:
        """As transformers takes them: one of all layers, or by the kind of layer."""
        window = self._slots.shape.window
        if window is None:
            return self.mask
        seen = torch.arange(self._length, device=self.mask.device)[None, None, :]
        is_near = seen > self.positions[:, :, None] - window.num_tokens
        near = self.mask & is_near[:, None]
        if not window.is_mixed:
            return near
        return {"full_attention": self.mask, "sliding_attention": near}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep this pass's keys and values; all there are of these slots."""
        all_keys, all_values = self._slots.layer(layer_idx)
        if self._num_tokens == 1:
            all_keys[self._rows][self._row_index, :, self._first] = keys[:, :, 0]
            all_values[self._rows][self._row_index, :, self._first] = values[:, :, 0]
        else:
            start = self._starts[0]
            all_keys[self._rows, :, start : start + self._num_tokens] = keys
            all_values[self._rows, :, start : start + self._num_tokens] = values
        return all_keys[self._rows, :, : self._length], all_values[self._rows, :, : self._length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return max(self._starts)
