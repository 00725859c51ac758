"""Operators of the caller's own: for torch by `torch.library`, for ONNX graphs by functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cluster.errors import ConfigError

if TYPE_CHECKING:
    from onnx import FunctionProto

_NAME = re.compile(r"^(?P<space>[A-Za-z_]\w*)::(?P<operator>[A-Za-z_]\w*)$")
RESERVED = ("aten", "prim", "onnx")


class CustomOperator:
    """Made by `custom_operator`. Called with tensors it computes; `torch.ops.SPACE.NAME` is the
    same. `close` takes it out of torch again."""

    def __init__(
        self,
        name: str,
        compute: Callable[..., Any] | None,
        *,
        fake: Callable[..., Any] | None,
        onnx_function: FunctionProto | None,
    ) -> None:
        matched = _NAME.match(name)
        if matched is None or matched["space"] in RESERVED:
            raise ConfigError(
                f"{name!r} is no name of an operator; write SPACE::NAME with a space of your own "
                f"(not {', '.join(RESERVED)})",
                key="name",
                value=name,
            )
        self.name = name
        self.space, self.operator = matched["space"], matched["operator"]
        self.onnx_function = onnx_function
        self.is_opaque = fake is not None
        self._library: Any = None
        if compute is not None:
            self._register(compute, fake)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, *tensors: Any) -> Any:
        """Raises: ConfigError when there is nothing to compute with, or it was closed."""
        if self._library is None:
            raise ConfigError(f"{self.name} computes nothing: no function was given", key="name")
        import torch

        return getattr(getattr(torch.ops, self.space), self.operator)(*tensors)

    def add_to_graph(self, model: str | Path, target: str | Path) -> Path:
        """A copy of an ONNX graph in which nodes `SPACE::NAME` are what `onnx_function` says; ONNX
        Runtime puts the function in their place when it loads. Weights stay in the copy.

        Raises: ConfigError without `onnx_function`, and for a graph that does not call it.
        """
        import onnx

        if self.onnx_function is None:
            raise ConfigError(
                f"{self.name} has no onnx_function: ONNX Runtime runs an operator of its own only "
                "where it is made of the standard ones",
                key="onnx_function",
            )
        graph = onnx.load(str(model))
        calls = [
            node
            for node in graph.graph.node
            if (node.domain, node.op_type) == (self.space, self.operator)
        ]
        if not calls:
            raise ConfigError(f"{model}: no node calls {self.name}", file=str(model), key="name")
        kept = [
            each
            for each in graph.functions
            if (each.domain, each.name) != (self.space, self.operator)
        ]
        del graph.functions[:]
        graph.functions.extend([*kept, self.onnx_function])
        if self.space not in {each.domain for each in graph.opset_import}:
            graph.opset_import.append(onnx.helper.make_opsetid(self.space, 1))
        file = Path(target)
        onnx.save(graph, str(file))
        return file

    def close(self) -> None:
        """Closing twice does nothing."""
        if self._library is not None:
            self._library._destroy()
            self._library = None

    def _register(self, compute: Callable[..., Any], fake: Callable[..., Any] | None) -> None:
        import torch

        try:
            schema = torch.library.infer_schema(compute, mutates_args=())
        except (ValueError, NameError) as error:
            said = str(error).splitlines()[0]
            raise ConfigError(
                f"{self.name}: the function's arguments and result must be annotated (Tensor, "
                f"int, float, bool, str, …): {said}",
                key="compute",
            ) from None
        make: Any = torch.library.Library  # torch has no types for it
        library = make(self.space, "FRAGMENT")
        try:
            library.define(f"{self.operator}{schema}")
            if fake is None:
                # Seen through by every export: what it is made of stands in its place.
                library.impl(self.operator, compute, "CompositeImplicitAutograd")
            else:
                library.impl(self.operator, compute, "CompositeExplicitAutograd")
                torch.library.register_fake(self.name, fake, lib=library)
        except RuntimeError as error:
            library._destroy()
            said = str(error).splitlines()[0]
            raise ConfigError(f"{self.name} cannot be registered: {said}", key="name") from None
        self._library = library


def custom_operator(
    name: str,
    compute: Callable[..., Any] | None = None,
    *,
    fake: Callable[..., Any] | None = None,
    onnx_function: FunctionProto | None = None,
) -> Any:
    """An operator `SPACE::NAME`; without `compute` and `onnx_function` a decorator of a function.

    `compute`, of annotated tensors, becomes an operator of `torch.library`. Made of torch's own
    operators it is exported as those, so `optimize` needs to know nothing of it. With `fake` (the
    shapes of its results) it may do anything, numpy or C++, is seen by torch as one operator, and
    runs in torch only. `onnx_function`: what it is in an ONNX graph, of standard operators (see
    `CustomOperator.add_to_graph`).
    Raises: ConfigError for a name that cannot be, is taken, or a function without annotations.
    """
    if compute is None and onnx_function is None:

        def decorate(function: Callable[..., Any]) -> CustomOperator:
            return CustomOperator(name, function, fake=fake, onnx_function=None)

        return decorate
    return CustomOperator(name, compute, fake=fake, onnx_function=onnx_function)
