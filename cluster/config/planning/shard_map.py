"""The keys of a shard map, `layers.0-5` or `layer_0_to_5`, and what is wrong in them whatever the
model is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cluster.config.section import Mistake
from cluster.errors import ConfigError

_RUN = re.compile(r"layers?[._](\d+)(?:(?:-|_to_)(\d+))?", re.ASCII)
FORMS = "layers.0-5, layers.3, layer_0_to_5, layer_3"
IN_ORDER = "the layers in order from layer 0, each once"


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


def told_run(run: range) -> str:
    """`layer 3`, `layers 6 to 11`."""
    return f"layer {run.start}" if len(run) == 1 else f"layers {run.start} to {run.stop - 1}"


def out_of_turn(run: range, expected: int) -> str:
    """What is wrong with a run where layer `expected` comes next; empty when it is that one."""
    if run.start > expected:
        are = "is" if run.start == expected + 1 else "are"
        return f"{told_run(range(expected, run.start))} {are} on no device before it"
    return f"layer {run.start} has a device already" if run.start < expected else ""


def map_mistakes(places: Iterable[tuple[str, str]]) -> Iterator[Mistake]:
    """Of (key, device) pairs: other forms, runs that end before they begin, gaps and overlaps. How
    many layers there are only the model says."""
    expected = 0
    for text, device in places:
        key = f"shard_map.{text}"
        try:
            run = parse_run(text)
        except ConfigError as error:
            said = error.message.removeprefix("shard_map: ").partition("; allowed")[0]
            yield Mistake(key=key, text=said, value="", allowed=FORMS)
            return
        said = out_of_turn(run, expected)
        if said:
            yield Mistake(key=key, text=f"on {device}: {said}", value="", allowed=IN_ORDER)
        expected = max(expected, run.stop)
