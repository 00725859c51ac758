"""How long a plan takes: 1,000 models on 1,024 devices (goal: under 60 s on one core).

    python -m loadtests.placement.scale                # a JSON line
    python -m loadtests.placement.scale --models 100 --nodes 16

Five sizes of language model from 0.3 to 13 billion weights, the largest of which does not fit one
device; rates fall by a power law and come in bursts (CV 3); the SLO is five times the time of a
request that is alone. The traffic keeps `load` of all devices' time busy.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np
from numpy.random import default_rng

from cluster.placement.search.buckets import seconds_alone
from cluster.placement.search.facts import Demand, LayerFacts, ModelFacts
from cluster.placement.search.find_plan import find_plan
from cluster.placement.search.plan import Plan
from cluster.simulation.cluster.fast import FastSimulator
from cluster.simulation.cluster.trace import draw_trace
from cluster.topology import Device, Link, Node, Topology

BILLIONS = ((0.3, 12), (1.3, 24), (2.7, 32), (6.7, 32), (13.0, 40))
TOKENS = 512
CALLS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """`cpu_s` is what one core did: the search has one thread."""

    models: int
    devices: int
    wall_s: float
    cpu_s: float
    num_simulated: int
    layout: str
    attainment: float
    replicas: int


def topology(num_nodes: int) -> Topology:
    """Nodes of eight GPUs of 24 GiB."""
    devices = tuple(
        Device(
            name=f"cuda:{index}",
            kind="cuda",
            memory_bytes=24 * 2**30,
            flops_per_s=60e12,
            memory_bytes_per_s=600e9,
        )
        for index in range(8)
    )
    link = Link(bytes_per_s=100e9, latency_s=10e-6)
    return Topology(
        nodes=tuple(Node(name=f"n{n:03}", devices=devices, link=link) for n in range(num_nodes)),
        network=Link(bytes_per_s=10e9, latency_s=30e-6),
        handover_s=1e-3,
    )


def demands(num_models: int, ground: Topology, *, load: float, seed: int) -> tuple[Demand, ...]:
    """Sizes and ranks are drawn; rates are scaled to `load`."""
    random = default_rng(seed)
    kinds = [_model(billions, layers) for billions, layers in BILLIONS]
    facts = [kinds[index] for index in random.integers(0, len(kinds), num_models)]
    weights = (1.0 + np.arange(num_models)) ** -0.7
    random.shuffle(weights)
    alone = [seconds_alone(_demand("", model, 1.0, 1.0), ground) for model in facts]
    scale = load * len(ground.sites()) / float(np.dot(weights, alone))
    return tuple(
        _demand(f"model-{index}", model, float(weight) * scale, 5 * seconds)
        for index, (model, weight, seconds) in enumerate(zip(facts, weights, alone, strict=True))
    )


def timed(num_models: int, num_nodes: int, *, load: float = 0.5, seed: int = 0) -> Timing:
    """One plan, with the drawing of its trace."""
    ground = topology(num_nodes)
    wanted = demands(num_models, ground, load=load, seed=seed)
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    seconds = CALLS / sum(demand.rate_per_s for demand in wanted)
    trace = draw_trace(wanted, seconds=seconds, random=default_rng(seed))
    plan = find_plan(ground, wanted, FastSimulator(trace))
    if not isinstance(plan, Plan):
        raise SystemExit(plan.message)
    return Timing(
        models=num_models,
        devices=len(ground.sites()),
        wall_s=time.perf_counter() - began_s,
        cpu_s=time.process_time() - cpu_began_s,
        num_simulated=plan.num_simulated,
        layout=plan.layout,
        attainment=plan.attainment,
        replicas=len(plan.replicas),
    )


def _model(billions: float, num_layers: int) -> ModelFacts:
    weights = billions * 1e9 / num_layers
    layer = LayerFacts(
        flops=2 * weights * TOKENS,
        weight_bytes=int(2 * weights),
        activation_bytes=TOKENS * 4096 * 2,
    )
    return ModelFacts(
        kind=f"llm-{billions}b", layers=(layer,) * num_layers, splits=(("heads", 32),)
    )


def _demand(name: str, facts: ModelFacts, rate_per_s: float, slo_s: float) -> Demand:
    return Demand(name=name, facts=facts, rate_per_s=rate_per_s, burstiness_cv=3.0, slo_s=slo_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=128)
    parser.add_argument("--load", type=float, default=0.5)
    asked = parser.parse_args()
    found = timed(asked.models, asked.nodes, load=asked.load)
    print(json.dumps({name: getattr(found, name) for name in Timing.__slots__}))


if __name__ == "__main__":
    main()
