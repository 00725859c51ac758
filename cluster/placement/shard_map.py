"""A shard map written by hand: `layers.0-5` or `layer_0_to_5` -> where these layers go."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cluster.errors import ConfigError

_RUN = re.compile(r"layers?[._](\d+)(?:(?:-|_to_)(\d+))?", re.ASCII)
FORMS = "layers.0-5, layers.3, layer_0_to_5, layer_3"


def parse_run(text: str) -> range:
    """The layers that a key of a shard map names, both ends included.

    Raises: ConfigError for another form, and for a run that ends before it begins.
    """
    found = _RUN.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"shard_map: {text!r} names no layers; allowed: {FORMS}",
            key=f"placement.shard_map.{text}",
            value=text,
            allowed=FORMS,
        )
    first = int(found[1])
    last = int(found[2]) if found[2] else first
    if last < first:
        raise ConfigError(
            f"shard_map: {text!r} ends (layer {last}) before it begins (layer {first})",
            key=f"placement.shard_map.{text}",
            value=text,
        )
    return range(first, last + 1)


def read_shard_map(places: Iterable[tuple[str, str]], num_layers: int) -> tuple[range, ...]:
    """The runs of (key, device) pairs in their order, which must be the model's layers in order,
    each once.

    Raises: ConfigError naming the layer and the device where they are not.
    """
    runs: list[range] = []
    expected = 0
    for text, device in places:
        run = parse_run(text)
        if run.start > expected:
            missing = _name(range(expected, run.start))
            raise _refuse(text, device, f"{missing} is on no device before it", num_layers)
        if run.start < expected:
            raise _refuse(text, device, f"layer {run.start} has a device already", num_layers)
        if run.stop > num_layers:
            said = f"there is no layer {max(run.start, num_layers)}"
            raise _refuse(text, device, said, num_layers)
        expected = run.stop
        runs.append(run)
    if expected < num_layers:
        missing = _name(range(expected, num_layers))
        raise ConfigError(
            f"shard_map: {missing} is on no device; the model has layers 0 to {num_layers - 1}",
            key="placement.shard_map",
            value=missing,
            allowed=f"layers.0-{num_layers - 1}, each once",
        )
    return tuple(runs)


def _name(run: range) -> str:
    return f"layer {run.start}" if len(run) == 1 else f"layers {run.start} to {run.stop - 1}"


def _refuse(text: str, device: str, said: str, num_layers: int) -> ConfigError:
    return ConfigError(
        f"shard_map: {text!r} on {device}: {said}; the model has layers 0 to {num_layers - 1}, "
        "and the map names them in order, each once",
        key=f"placement.shard_map.{text}",
        value=text,
        allowed=f"layers 0 to {num_layers - 1}",
    )
