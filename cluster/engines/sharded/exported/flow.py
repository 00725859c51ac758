"""What flows in a `torch.export` program: who is computed, who is a weight, who is only a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from cluster.errors import ConfigError

_NO_EFFECT = ("_assert", "sym_constrain", "_check")
"""Operators that only refuse: each stage's own export makes those that it needs."""

_WORK = ("conv", "linear", "mm", "matmul", "attention", "einsum", "embedding")
"""Operators that no stage does again."""
SMALL_BYTES = 4096
"""A constant that several stages may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """`body`: the operators in order; `weights`: placeholders of parameters and constants, with
    their tensors; `computed`: what depends on an input; `sizes`: integers."""

    program: ExportedProgram
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    body: tuple[Node, ...]
    weights: dict[Node, torch.Tensor]
    computed: frozenset[Node]
    sizes: frozenset[Node]

    def size_of(self, size: Node, tensors: tuple[Node, ...]) -> tuple[Node, int] | None:
        """The tensor and dimension that have this size; None when no shape says it."""
        wanted = str(size.meta["val"])
        for tensor in tensors:
            for dim, found in enumerate(tensor.meta["val"].shape):
                if not isinstance(found, int) and str(found) == wanted:
                    return tensor, dim
        return None

    def made_of_inputs(self) -> dict[Node, frozenset[Node]]:
        """Tensors that are computed cheaply (no weight, no product) of the caller's inputs and of
        sizes alone, with the inputs and sizes that each is made of. None where one of them is
        changed in place: made again it would lack the change."""
        heavy = {n for n, value in self.weights.items() if value.nbytes > SMALL_BYTES}
        found: dict[Node, frozenset[Node]] = {}
        for node in self.body:
            reads = set(node.all_input_nodes)
            depends = reads & self.computed
            if reads & heavy and not depends:
                heavy.add(node)
            if not depends or node in self.sizes or reads & heavy:
                continue
            own = depends & (self.sizes | set(self.inputs))
            if _is_in_place(node) and found.keys() & reads:
                return {}
            is_work = any(word in str(node.target) for word in _WORK) or _is_random(node)
            if not is_work and depends - own <= found.keys():
                found[node] = frozenset(own).union(*(found[n] for n in depends - own))
        return found


def flow_of(program: ExportedProgram) -> Flow:
    """Raises: ConfigError for a program that changes its own buffers, or its inputs."""
    signature = program.graph_signature
    names = {str(name) for name in signature.user_inputs}
    tensors: dict[str, Any] = {
        **{k: program.state_dict[v] for k, v in signature.inputs_to_parameters.items()},
        **{k: _buffer(program, v) for k, v in signature.inputs_to_buffers.items()},
        **{k: program.constants[v] for k, v in signature.inputs_to_lifted_tensor_constants.items()},
    }
    nodes = list(program.graph.nodes)
    inputs = tuple(n for n in nodes if n.op == "placeholder" and n.name in names)
    body = tuple(
        n
        for n in nodes
        if n.op == "call_function" and not any(word in str(n.target) for word in _NO_EFFECT)
    )
    computed = set(inputs)
    weights = {n: tensors[n.name] for n in nodes if n.name in tensors}
    _refuse_state(program, body, weights)
    _refuse_changes(inputs, body)
    for node in body:
        if any(read in computed for read in node.all_input_nodes):
            computed.add(node)
    (end,) = [n for n in nodes if n.op == "output"]
    return Flow(
        program=program,
        inputs=inputs,
        outputs=tuple(end.all_input_nodes),
        body=body,
        weights=weights,
        computed=frozenset(computed),
        sizes=frozenset(n for n in body if not _is_tensor(n.meta.get("val"))),
    )


def _refuse_state(
    program: ExportedProgram, body: tuple[Node, ...], weights: dict[Node, torch.Tensor]
) -> None:
    names = {**program.graph_signature.inputs_to_buffers}
    changed = [str(name) for name in program.graph_signature.buffers_to_mutate.values()]
    for node in body:
        if _is_in_place(node) and node.args[0] in weights:
            changed.append(names.get(str(node.args[0]), str(node.args[0])))
    if changed:
        raise ConfigError(
            f"the program changes its buffer {changed[0]!r}; allowed: programs without state",
            key="placement.strategy",
        )


def _refuse_changes(inputs: tuple[Node, ...], body: tuple[Node, ...]) -> None:
    """An input goes on to later stages as the caller gave it."""
    for node in body:
        if _is_in_place(node) and node.args[0] in inputs:
            raise ConfigError(
                f"the program changes its input {str(node.args[0])!r} in place; allowed: programs "
                "that leave their inputs as they are",
                key="placement.strategy",
            )


def _is_in_place(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _is_tensor(value: Any) -> bool:
    return not isinstance(value, int | float | torch.SymInt | torch.SymFloat | torch.SymBool)


def _buffer(program: ExportedProgram, name: str) -> torch.Tensor:
    """One that is not persistent is kept with the constants."""
    found = program.state_dict.get(name)
    kept: torch.Tensor = program.constants[name] if found is None else found
    return kept
