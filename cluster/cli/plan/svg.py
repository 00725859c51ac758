"""A picture of a plan: a box a device, a stripe a shard as high as its bytes."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from html import escape
from itertools import groupby

from cluster.placement.search.plan import Plan, PlannedDevice, PlannedShard
from cluster.units import human_bytes

WIDTH, HEIGHT, GAP, TOP, MARGIN = 128, 160, 12, 64, 16
PER_ROW = 8
LABEL = 12


def svg(plan: Plan) -> str:
    """The whole document. Devices of a group have a border of one colour."""
    shards: dict[tuple[str, str], list[tuple[str, PlannedShard]]] = {}
    for replica in plan.replicas:
        for shard in replica.shards:
            key = shard.site.node, shard.site.device.name
            shards.setdefault(key, []).append((replica.model, shard))
    colours = {model.name: _colour(index, 0.80) for index, model in enumerate(plan.models)}
    parts: list[str] = []
    y = TOP
    for node, group in groupby(plan.devices, key=lambda device: device.site.node):
        devices = list(group)
        parts.append(_text(MARGIN, y + LABEL, node, size=14))
        y += 20
        for begin in range(0, len(devices), PER_ROW):
            for column, device in enumerate(devices[begin : begin + PER_ROW]):
                x = MARGIN + column * (WIDTH + GAP)
                key = device.site.node, device.site.device.name
                parts += _device(x, y, device, shards.get(key, []), colours)
            y += HEIGHT + 40
    width = 2 * MARGIN + PER_ROW * (WIDTH + GAP)
    title = f"{plan.layout}: {plan.attainment:.1%} of simulated calls in time"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" '
        f'viewBox="0 0 {width} {y}" font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n'
        f"{_text(MARGIN, 32, title, size=18)}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _device(
    x: float,
    y: float,
    device: PlannedDevice,
    shards: list[tuple[str, PlannedShard]],
    colours: dict[str, str],
) -> Iterator[str]:
    memory = device.site.device.memory_bytes
    bottom = y + HEIGHT
    yield (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" fill="#f4f4f4" '
        f'stroke="{_colour(device.group, 0.45)}" stroke-width="3"/>'
    )
    for model, shard in shards:
        height = HEIGHT * shard.bytes_held / memory
        bottom -= height
        layers = f"{shard.layers.start}-{shard.layers.stop - 1}"
        said = f"{model} layers {layers}, {human_bytes(shard.bytes_held)}"
        yield (
            f'<rect x="{x}" y="{bottom:.1f}" width="{WIDTH}" height="{height:.1f}" '
            f'fill="{colours[model]}" stroke="white"><title>{escape(said)}</title></rect>'
        )
        if height >= LABEL:
            yield _text(x + 4, bottom + height / 2 + 4, f"{model} {layers}"[:20])
    name = f"{device.site.device.name}, group {device.group}"
    used = f"{human_bytes(device.bytes_held)}, busy {device.busy:.0%}"
    yield _text(x, y + HEIGHT + 14, name)
    yield _text(x, y + HEIGHT + 28, used)


def _text(x: float, y: float, text: str, size: int = 11) -> str:
    return f'<text x="{x}" y="{y:.1f}" font-size="{size}">{escape(text)}</text>'


def _colour(index: int, lightness: float) -> str:
    """Neighbouring indices are far apart on the wheel (steps of the golden ratio)."""
    red, green, blue = colorsys.hls_to_rgb(index * 0.618034 % 1.0, lightness, 0.6)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"
