"""A Hugging Face directory as one part: the plain engine, and what shards are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch

from cluster.engines.engine import EngineSetup
from cluster.engines.sharded.generate import generate
from cluster.engines.sharded.options import check_transformers, dtype_option
from cluster.engines.sharded.part import Part, PartSetup, Step
from cluster.placement.partition import Shard
from cluster.requests import Parameter
from cluster.tensors import Array


class Generator:
    """Tokens of one loaded language model; many streams may be open at once."""

    def __init__(self, part: Part, max_tokens: int) -> None:
        self._part = part
        self._max_tokens = max_tokens
        self._numbers = count(1)
        self._ended: list[str] = []

    def stream(
        self, inputs: dict[str, Array], parameters: dict[str, Parameter]
    ) -> Iterator[dict[str, Array]]:
        sequence = f"s{next(self._numbers)}"

        def logits(ids: Array) -> Array:
            ended, self._ended = tuple(self._ended), []
            step = Step(sequence=sequence, is_last_only=True, ends=ended)
            found: Array = self._part.run({"input_ids": ids}, step)["logits"].numpy()
            return found

        def end() -> None:
            self._ended.append(sequence)

        return generate(logits, inputs, parameters, max_positions=self._max_tokens, end=end)


def load_whole(
    setup: EngineSetup, device: torch.device
) -> tuple[Callable[..., Any], int, Generator]:
    """What computes the outputs of the inputs in the card's order, its weights' bytes, and what
    generates."""
    part = whole_part(setup, str(device))
    facts = part.load()
    names = [card.name for card in setup.card.signature.inputs]

    def call(*given: torch.Tensor) -> Any:
        return part.run(dict(zip(names, given, strict=True)), Step())

    return call, facts.weight_bytes, Generator(part, positions_of(setup))


def positions_of(setup: EngineSetup) -> int:
    """How many positions a sequence may have; 0 where the config does not say."""
    from cluster.engines.sharded.families import read_config

    config = read_config(setup.folder / setup.card.artefact)
    return int(getattr(config, "max_position_embeddings", 0))


def whole_part(setup: EngineSetup, device: str = "cpu") -> Part:
    """The part that is the whole model, not yet loaded."""
    check_transformers()
    from cluster.engines.sharded.families import read_config
    from cluster.engines.sharded.torch_part import TorchPart

    config = read_config(setup.folder / setup.card.artefact)
    shard = Shard(
        rank=0,
        stage=0,
        num_stages=1,
        tensor_rank=0,
        tensor_degree=1,
        layers=range(int(config.num_hidden_layers)),
        device=device,
    )
    return TorchPart(
        PartSetup(
            card=setup.card,
            folder=setup.folder,
            shard=shard,
            threads=setup.threads,
            dtype=dtype_option(setup.options),
        )
    )
