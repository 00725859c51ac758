"""A shard map written by hand, read against the model that it places."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.config.planning.shard_map import out_of_turn, parse_run, told_run
from cluster.errors import ConfigError


def read_shard_map(places: Iterable[tuple[str, str]], num_layers: int) -> tuple[range, ...]:
    """The runs of (key, device) pairs in their order, which must be the model's layers in order,
    each once.

    Raises: ConfigError naming the layer and the device where they are not.
    """
    runs: list[range] = []
    expected = 0
    for text, device in places:
        run = parse_run(text)
        wrong = out_of_turn(run, expected)
        if wrong:
            raise _refuse(text, device, wrong, num_layers)
        if run.stop > num_layers:
            said = f"there is no layer {max(run.start, num_layers)}"
            raise _refuse(text, device, said, num_layers)
        expected = run.stop
        runs.append(run)
    if expected < num_layers:
        missing = told_run(range(expected, num_layers))
        are = "is" if expected == num_layers - 1 else "are"
        raise ConfigError(
            f"shard_map: {missing} {are} on no device; the model has layers 0 to {num_layers - 1}",
            key="placement.shard_map",
            value=missing,
            allowed=f"layers.0-{num_layers - 1}, each once",
        )
    return tuple(runs)


def _refuse(text: str, device: str, said: str, num_layers: int) -> ConfigError:
    return ConfigError(
        f"shard_map: {text!r} on {device}: {said}; the model has layers 0 to {num_layers - 1}, "
        "and the map names them in order, each once",
        key=f"placement.shard_map.{text}",
        value=text,
        allowed=f"layers 0 to {num_layers - 1}",
    )
