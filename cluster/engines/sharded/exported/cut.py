"""A `torch.export` program cut where one computed tensor is all that goes on.

Run as a program it tells the layers, or writes the stages' files, each a `torch.export` program of
its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from cluster.engines.pt2_archive import refuse_pickles
from cluster.engines.sharded.exported.flow import Flow, flow_of
from cluster.engines.sharded.exported.stage import examples, stage_module
from cluster.engines.sharded.stages import answer_program, cut_into_files
from cluster.placement.partition import LayeredModel

SUFFIX = ".pt2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """After the `node`-th operator only `tensor` is needed of what was computed before it, beside
    the caller's own `inputs` and what is made of them and of sizes alone, like a mask: each stage
    makes that again."""

    node: int
    tensor: str
    inputs: tuple[str, ...]


def cuts(flow: Flow) -> tuple[Cut, ...]:
    """The articulation points of the program's data flow, in order. Weights and constants are no
    data flow; a size goes along where a shape says it."""
    last_use: dict[Node, int] = {}
    for index, node in enumerate(flow.body):
        for read in node.all_input_nodes:
            last_use[read] = index
    for node in flow.outputs:
        last_use[node] = len(flow.body)
    made_of = flow.made_of_inputs()
    found: list[Cut] = []
    alive: set[Node] = set()
    for index, node in enumerate(flow.body[:-1]):
        alive = {each for each in alive | {node} if last_use.get(each, -1) > index}
        data = {n for n in alive if n in flow.computed and n not in flow.sizes}
        again = data & made_of.keys() if len(data) > 1 else set()
        if data - again != {node} or not isinstance(node.meta["val"], torch.Tensor):
            continue
        origin = {each for n in again for each in made_of[n]}
        inputs = tuple(i for i in flow.inputs if last_use.get(i, -1) > index or i in origin)
        wanted = {n for n in alive | origin if n in flow.sizes and n in flow.computed}
        if all(flow.size_of(size, (node, *inputs)) is not None for size in wanted):
            found.append(Cut(node=index, tensor=node.name, inputs=tuple(i.name for i in inputs)))
    return _carried(flow, found)


def _carried(flow: Flow, points: Sequence[Cut]) -> tuple[Cut, ...]:
    """An input that is needed after a cut goes over every cut before it as well."""
    needed: set[str] = set()
    found: list[Cut] = []
    for point in reversed(points):
        needed.update(point.inputs)
        inputs = tuple(node.name for node in flow.inputs if node.name in needed)
        found.append(replace(point, inputs=inputs))
    return tuple(reversed(found))


def segments(file: Path) -> LayeredModel:
    """The runs of operators between cuts as layers, with the bytes of their weights and their
    multiplications."""
    program = load(file)
    flow = flow_of(program)
    bounds = [0, *(cut.node + 1 for cut in cuts(flow)), len(flow.body)]
    layer_bytes, layer_cost = [], []
    for start, stop in pairwise(bounds):
        nodes = flow.body[start:stop]
        weights = {n for node in nodes for n in node.all_input_nodes if n in flow.weights}
        layer_bytes.append(sum(_num_bytes(node.meta["val"]) for node in weights))
        layer_cost.append(sum(_multiplications(node) for node in nodes) or 1.0)
    return LayeredModel(
        num_layers=len(layer_bytes),
        layer_bytes=tuple(layer_bytes),
        layer_cost=tuple(layer_cost),
        can_be_split=False,
        can_be_streamed=False,
    )


def stage_files(file: Path, runs: Sequence[range]) -> tuple[str, ...]:
    return cut_into_files(file, runs, program=__spec__.name, suffix=SUFFIX)


def load(file: Path) -> ExportedProgram:
    """Raises: ConfigError for an archive that holds more than tensors."""
    refuse_pickles(file)
    return torch.export.load(str(file))


def write_stages(file: Path, folder: Path, runs: Sequence[range]) -> None:
    """Each file appears whole or not at all; two that cut at the same time write the same."""
    flow = flow_of(load(file))
    points = cuts(flow)
    bounds = [0, *(cut.node + 1 for cut in points), len(flow.body)]
    for index, run in enumerate(runs):
        before = points[run.start - 1] if run.start else None
        after = points[run.stop - 1] if index < len(runs) - 1 else None
        takes = [n.name for n in flow.inputs]
        if before is not None:
            takes = [before.tensor, *before.inputs]
        gives = [after.tensor] if after is not None else [n.name for n in flow.outputs]
        module = stage_module(flow, range(bounds[run.start], bounds[run.stop]), takes, gives)
        given, shapes = examples(flow, takes)
        stage = torch.export.export(module, given, dynamic_shapes=shapes, strict=False)
        told = {
            "takes": takes,
            "gives": gives if after is not None else output_names(flow.program),
            "rides": list(after.inputs) if after is not None else [],
        }
        mark = f".{os.getpid()}"
        _appear(folder / f"stage-{index}.json", mark, json.dumps(told).encode())
        temporary = folder / f"stage-{index}{mark}{SUFFIX}"
        torch.export.save(stage, str(temporary))
        temporary.rename(folder / f"stage-{index}{SUFFIX}")


def output_names(program: ExportedProgram) -> list[str]:
    """The keys of a program that answers with a dict; none of one that answers in order."""
    spec = program.call_spec.out_spec
    return [str(key) for key in spec.context] if spec is not None and spec.type is dict else []


def _appear(path: Path, mark: str, content: bytes) -> None:
    temporary = path.with_name(path.name + mark)
    temporary.write_bytes(content)
    temporary.rename(path)


def _num_bytes(value: torch.Tensor) -> int:
    return value.numel() * value.element_size()


def _size(value: Any) -> float:
    """A size that is not known counts as one."""
    return float(value) if isinstance(value, int) else 1.0


def _multiplications(node: Node) -> float:
    name = str(node.target)
    kind = next((k for k in ("conv", "linear", "addmm", "bmm", "matmul", ".mm") if k in name), "")
    if not kind or not isinstance(node.meta.get("val"), torch.Tensor):
        return 0.0
    total = 1.0
    for size in node.meta["val"].shape:
        total *= _size(size)
    weight = node.args[2 if kind == "addmm" else 1]
    assert isinstance(weight, Node)
    shape = weight.meta["val"].shape
    for size in shape[1:] if kind == "conv" else shape[-1:] if kind == "linear" else shape[-2:-1]:
        total *= _size(size)
    return total


if __name__ == "__main__":
    answer_program(sys.argv[1:], segments, write_stages)
