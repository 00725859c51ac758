"""What is short when not every model has a place: the message an operator can act on."""

from __future__ import annotations

from dataclasses import replace

from cluster.placement.search.buckets import fastest
from cluster.placement.search.facts import Demand, LayerFacts, ModelFacts
from cluster.placement.search.fill import NoRoom, pack
from cluster.placement.search.groups import cuts_of, layouts
from cluster.placement.search.memory import layer_bytes, told_kinds
from cluster.placement.search.plan import Rejected, Shortage
from cluster.topology import Topology
from cluster.units import human_bytes

MAX_MORE = 1024


def shortage(
    topology: Topology, demands: tuple[Demand, ...], rejected: tuple[Rejected, ...]
) -> Shortage:
    """The fewest more devices like the fastest ones, and whether int8 weights would do."""
    more = _fewest_more(topology, demands)
    device = fastest(topology).devices[-1]
    in_int8 = tuple(replace(d, facts=_in_int8(d.facts)) for d in demands)
    is_smaller = any(d.facts.weight_bits > 8 for d in demands)
    fits_in_int8 = is_smaller and is_packable(topology, in_int8)
    cap = min((d.facts.max_weight_bytes for d in demands if d.facts.max_weight_bytes), default=0)
    sizes = [site.device.memory_bytes for site in topology.sites()]
    have = sum(min(size, cap or size) for size in sizes)
    device_bytes = min(device.memory_bytes, cap or device.memory_bytes)
    # Bought by what is written on it, of which a part stays free.
    sold_bytes = min(device.sold_bytes, cap or device.sold_bytes)
    usable = " usable" if sold_bytes > device_bytes else ""
    means: list[str] = []
    if more is not None:
        plural = "" if more == 1 else "s"
        means.append(f"{more} more device{plural} of {human_bytes(sold_bytes)}")
    if fits_in_int8:
        means.append("int8")
    wants = f"needs {', or '.join(means)}" if means else _hopeless(demands, device_bytes)
    names = ", ".join(d.name for d in demands[:3]) + (" …" if len(demands) > 3 else "")
    short = f"{len(topology.sites())} devices with {human_bytes(have)}{usable} together"
    return Shortage(
        message=f"{names}: {told_kinds(demands)} do not fit in {short}: {wants}",
        more_devices=more,
        device_bytes=device_bytes,
        fits_in_int8=fits_in_int8,
        rejected=rejected,
    )


def is_packable(topology: Topology, demands: tuple[Demand, ...]) -> bool:
    """Whether some layout has a place for every model."""
    models = range(len(demands))
    return any(
        not isinstance(pack(layout, cuts_of(layout, demands), models), NoRoom)
        for layout in layouts(topology, topology.sites())
    )


def _fewest_more(topology: Topology, demands: tuple[Demand, ...]) -> int | None:
    step = 1
    while not is_packable(_grown(topology, step), demands):
        step *= 2
        if step > MAX_MORE:
            return None
    low, high = step // 2, step
    while high - low > 1:
        middle = (low + high) // 2
        if is_packable(_grown(topology, middle), demands):
            high = middle
        else:
            low = middle
    return high


def _grown(topology: Topology, count: int) -> Topology:
    """More nodes like the fastest one, the very last of them as large as needed."""
    last = fastest(topology)
    device = last.devices[-1]
    size = len(last.devices)
    nodes = list(topology.nodes)
    for begin in range(0, count, size):
        devices = tuple(
            replace(device, name=f"{device.name}+{n}") for n in range(min(size, count - begin))
        )
        nodes.append(replace(last, name=f"{last.name}+{begin}", devices=devices))
    return replace(topology, nodes=tuple(nodes))


def _in_int8(facts: ModelFacts) -> ModelFacts:
    if facts.weight_bits <= 8:
        return facts

    def smaller(layer: LayerFacts) -> LayerFacts:
        return replace(layer, weight_bytes=layer.weight_bytes * 8 // facts.weight_bits)

    return replace(
        facts,
        layers=tuple(map(smaller, facts.layers)),
        embedding=smaller(facts.embedding),
        head=smaller(facts.head),
        weight_bits=8,
    )


def _hopeless(demands: tuple[Demand, ...], device_bytes: int) -> str:
    largest, part = max(
        ((demand, part) for demand in demands for part in demand.facts.parts),
        key=lambda found: layer_bytes(*found),
    )
    layer = layer_bytes(largest, part)
    more = ", or fewer sequences at once" if part.weight_bytes <= device_bytes < layer else ""
    return (
        f"needs larger devices{more}: one layer of {largest.name} alone takes "
        f"{human_bytes(layer)}, a device has {human_bytes(device_bytes)}"
    )
