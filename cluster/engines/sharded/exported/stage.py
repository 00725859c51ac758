"""One stage of a cut program as a module that can be exported again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from cluster.engines.sharded.exported.flow import Flow
from cluster.errors import EngineFailed


def stage_module(
    flow: Flow, run: range, takes: Sequence[str], gives: Sequence[str]
) -> torch.nn.Module:
    """The operators of `run`, with the weights and constants that they read and no others."""
    return _Copy(flow, takes).module(flow.body[run.start : run.stop], gives)


def examples(flow: Flow, takes: Sequence[str]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Inputs to export a stage with, and which of their sizes are free."""
    nodes = _by_name(flow)
    given: list[torch.Tensor] = []
    free: list[dict[int, Any]] = []
    for name in takes:
        value = nodes[name].meta["val"]
        shape = [_number(size) for size in value.shape]
        given.append(torch.zeros(shape, dtype=value.dtype))
        free.append(
            {
                dim: torch.export.Dim.AUTO
                for dim, size in enumerate(value.shape)
                if not isinstance(size, int)
            }
        )
    return tuple(given), tuple(free)


class _Copy:
    """Nodes of the whole program, copied as they are asked for."""

    def __init__(self, flow: Flow, takes: Sequence[str]) -> None:
        self._flow = flow
        self._graph = Graph()
        self._root = nn.Module()
        nodes = _by_name(flow)
        self._taken = tuple(nodes[name] for name in takes)
        self._made = {node: self._graph.placeholder(node.name) for node in self._taken}

    def module(self, body: Sequence[Node], gives: Sequence[str]) -> nn.Module:
        inside = set(body)
        for node in body:
            self._copied(node, inside)
        nodes = _by_name(self._flow)
        self._graph.output(tuple(self._copied(nodes[name], inside) for name in gives))
        self._graph.eliminate_dead_code()
        return GraphModule(self._root, self._graph).eval()

    def _copied(self, node: Node, inside: set[Node]) -> Node:
        if node not in self._made:
            self._made[node] = self._copy(node, inside)
        return self._made[node]

    def _copy(self, node: Node, inside: set[Node]) -> Node:
        flow = self._flow
        if node in flow.weights:
            self._root.register_buffer(node.name, flow.weights[node])
            return self._graph.get_attr(node.name)
        if node.op == "get_attr":
            setattr(
                self._root, str(node.target), getattr(flow.program.graph_module, str(node.target))
            )
            return self._graph.get_attr(str(node.target))
        if node in flow.sizes and node not in inside and node in flow.computed:
            found = flow.size_of(node, self._taken)
            if found is None:
                raise EngineFailed(f"no shape says the size {node.name}")
            tensor, dim = found
            size = torch.ops.aten.sym_size.int
            return self._graph.call_function(size, (self._made[tensor], dim))
        return self._graph.node_copy(node, lambda read: self._copied(read, inside))


def _by_name(flow: Flow) -> dict[str, Node]:
    return {node.name: node for node in flow.program.graph.nodes}


def _number(size: Any) -> int:
    """What the program was exported with; 2 where that is not kept (0 and 1 are special)."""
    if isinstance(size, int):
        return size
    hint = size.node.hint
    return int(hint) if hint is not None else 2
