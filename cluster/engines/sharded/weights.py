"""Weights of a Hugging Face directory, read one by one from memory-mapped safetensors files.

A tensor that is taken whole in its own data type stays a view on the mapping: its pages are the
page cache's, shared by all processes of the node. A slice or another data type is a copy, and the
mapping it was read through is closed again, so that its pages do not count as ours.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cluster.errors import ConfigError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Ranges of one dimension, in the order in which they are put together."""

    dim: int
    ranges: tuple[tuple[int, int], ...]


class CheckpointFiles:
    """Opens nothing but the tensors that are asked for; `opened` has their names, however
    often each is read. `is_mapped`: whole tensors may be views on the mapping; else every one is a
    copy that goes when it is let go, as a bound on memory needs: pages of a mapping stay."""

    def __init__(self, folder: Path, *, is_mapped: bool = True) -> None:
        self.opened: set[str] = set()
        self._is_mapped = is_mapped
        self._folder = folder
        self._files = _index(folder)
        self._mapped: dict[Path, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        with safe_open(str(self._file(name)), "pt") as opened:
            return tuple(opened.get_slice(name).get_shape())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, from the files' headers. Raises: ConfigError for a file that is cut
        short or lacks what the index says."""
        found: dict[str, tuple[int, ...]] = {}
        for file in self.files:
            try:
                with safe_open(str(file), "pt") as opened:
                    for name in opened.keys():  # noqa: SIM118 - it is no mapping
                        if self._files.get(name) == file:
                            found[name] = tuple(opened.get_slice(name).get_shape())
            except SafetensorError as error:
                raise ConfigError(f"{file}: {error}", file=str(file)) from None
        lacking = next((name for name in self._files if name not in found), None)
        if lacking is not None:
            file = self._files[lacking]
            raise ConfigError(f"{file}: has no tensor {lacking!r}", file=str(file), key=lacking)
        return found

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(sorted(set(self._files.values())))

    def num_bytes(self, names: Sequence[str]) -> dict[str, int]:
        """The bytes of each on disk, from the files' headers."""
        sizes: dict[str, int] = {}
        for file in {self._file(name) for name in names}:
            header = _header(file)
            for name, entry in header.items():
                if name in names:
                    start, stop = entry["data_offsets"]
                    sizes[name] = stop - start
        return sizes

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def read(
        self, name: str, dtype: torch.dtype, device: torch.device, slices: Sequence[Slice] = ()
    ) -> torch.Tensor:
        """The tensor, or those slices of it. Raises: ConfigError naming tensor and folder."""
        file = self._file(name)
        self.opened.add(name)
        if self._is_mapped and not slices and device.type == "cpu":
            if file not in self._mapped:
                self._mapped[file] = safe_open(str(file), "pt")
            whole: torch.Tensor = self._mapped[file].get_tensor(name)
            if whole.dtype == dtype:
                return whole
            del whole
        with safe_open(str(file), "pt") as opened:
            if not slices:
                found: torch.Tensor = opened.get_tensor(name)
            else:
                found = _sliced(opened.get_slice(name), slices)
            # A copy, always: what was mapped is unmapped when the file is closed.
            return found.to(device=device, dtype=dtype, copy=True).contiguous()

    def close(self) -> None:
        self._mapped.clear()

    def _file(self, name: str) -> Path:
        file = self._files.get(name)
        if file is None:
            raise ConfigError(
                f"{self._folder}: its safetensors files have no tensor {name!r}",
                file=str(self._folder),
                key=name,
            )
        return file


def _sliced(view: object, slices: Sequence[Slice]) -> torch.Tensor:
    (cut,) = slices
    before = (slice(None),) * cut.dim
    parts = [view[(*before, slice(start, stop))] for start, stop in cut.ranges]  # type: ignore[index]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=cut.dim)


def _index(folder: Path) -> dict[str, Path]:
    """Tensor name -> file. Raises: ConfigError when the folder has no safetensors weights."""
    index = folder / INDEX
    if index.is_file():
        try:
            mapping = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = {str(name): folder / str(file) for name, file in mapping.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"{index}: not an index of safetensors files: an object with weight_map is needed",
                file=str(index),
                key="weight_map",
            ) from None
        for file in set(files.values()):
            if file.parent != folder or not file.is_file():
                raise ConfigError(f"{index}: names {file}, which is not there", file=str(index))
        return files
    single = folder / SINGLE
    if not single.is_file():
        others = sorted(file.name for file in folder.glob("*") if file.suffix in OTHER_WEIGHTS)
        there = f" (there is {', '.join(others[:3])})" if others else ""
        raise ConfigError(
            f"{folder}: no {SINGLE} and no {INDEX}{there}; weights in other files are not read, as "
            "they would be unpickled, which runs what is in them: load the model where you trust "
            "it and write it anew with transformers' save_pretrained",
            file=str(single),
            key="artefact",
        )
    return dict.fromkeys((name for name in _header(single) if name != "__metadata__"), single)


def _header(file: Path) -> dict[str, dict[str, list[int]]]:
    """Source: the safetensors format, a little-endian u64 of length, then JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if 0 < length <= 100_000_000:
            with contextlib.suppress(ValueError):
                found: dict[str, dict[str, list[int]]] = json.loads(stream.read(length))
                return found
    raise ConfigError(f"{file}: not a safetensors file", file=str(file))
