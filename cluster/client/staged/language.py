"""A language model in this process: logits, and text token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cluster.client.staged.backend import StagedBackend
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.generate import PARAMETERS, generate
from cluster.engines.sharded.part import Step
from cluster.errors import ConfigError, InvalidRequest
from cluster.optimization.huggingface.directory import card_of
from cluster.placement.partition import MIB
from cluster.requests import Parameter
from cluster.tensors import Array

WHOLE = PlacementConfig(strategy="layer", shards=1)


class LanguageBackend(StagedBackend):
    """A Hugging Face directory of a family that generates. `infer` gives logits for token ids.

    Greedy unless `temperature` is above 0; generation ends at the tokenizer's end of text.
    """

    offloads_to = "the files"

    def __init__(
        self, directory: Path, *, name: str, threads: int = 1, placement: PlacementConfig = WHOLE
    ) -> None:
        super().__init__(card_of(directory, name=name), directory, placement, threads=threads)
        self._numbers = count(1)
        self._ended: list[str] = []
        self._tokens: Any = None
        self._max_length = self._max_positions()

    def generate(
        self, prompt: str | Array, parameters: Mapping[str, Parameter], *, use_cache: bool
    ) -> Iterator[str | int]:
        """See `Generates`. Raises: InvalidRequest for an unknown parameter, and for more tokens
        than there are positions."""
        for name in parameters:
            if name not in PARAMETERS:
                allowed = ", ".join(PARAMETERS)
                raise InvalidRequest(f"no parameter {name!r}; allowed: {allowed}")
        wanted = dict(parameters)
        if isinstance(prompt, str):
            tokenizer = self._tokenizer()
            ids = np.asarray([tokenizer.encode(prompt)], dtype=np.int64)
            if tokenizer.hf.eos_token_id is not None:
                wanted.setdefault("stop_token", int(tokenizer.hf.eos_token_id))
            stream = tokenizer.stream()
            for token in self._stream(ids, wanted, use_cache=use_cache):
                text = tokenizer.step(stream, token)
                if text:
                    yield text
        else:
            yield from self._stream(prompt, wanted, use_cache=use_cache)

    def use_kv_cache(self, kind: str, max_length: int) -> None:
        """Raises: ConfigError for more positions than the model has."""
        most = self._max_positions()
        if most and max_length > most:
            raise ConfigError(
                f"max_sequence_length is {max_length}; the model has {most} positions",
                key="max_sequence_length",
                value=max_length,
                allowed=f"1 to {most}",
            )
        cache: Literal["static", "dynamic"] = "static" if kind == "static" else "dynamic"
        wanted = {"kv_cache": cache, "kv_cache_tokens": max_length}
        self.replace(self.placement.model_copy(update=wanted))
        self._max_length = max_length

    def bound_memory(self, num_bytes: int) -> None:
        """Raises: ConfigError when a layer with its neighbour does not fit."""
        self.replace(self.placement.model_copy(update={"max_memory_mb": num_bytes / MIB}))

    def use_efficient_attention(self) -> tuple[str, bool]:
        """What is in use, and that it is."""
        return "scaled-dot-product attention of torch is what this model is run with", True

    @property
    def vocabulary(self) -> int:
        from cluster.engines.sharded.families import read_config

        return int(read_config(self.folder).vocab_size)

    def write(
        self,
        prompt: Array,
        num_tokens: int,
        phase: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
    ) -> list[int]:
        """The likeliest `num_tokens` after `prompt` ([1, tokens]); each step is inside what `phase`
        gives for `prefill` or `decode`."""
        sequence, given, found = f"s{next(self._numbers)}", prompt, []
        with self._turn:
            self._check_open()
            for number in range(num_tokens):
                with phase("decode" if number else "prefill"):
                    step = Step(sequence=sequence, is_last_only=True)
                    logits = self._through({"input_ids": given}, step)["logits"].numpy()
                given = logits[:, -1].argmax(-1)[:, None].astype(np.int64)
                found.append(int(given[0, 0]))
            for part in self._parts:
                part.drop((sequence,))
        return found

    def layer_parts(self) -> Iterator[tuple[str, Any]]:
        """Torch modules by name: `layers.3/self_attn`, `embed_tokens`, `lm_head`, …"""
        for part in self._parts:
            # Of other formats nothing tells a layer apart.
            yield from getattr(part, "layer_parts", tuple)()

    def _stream(
        self, ids: Array, parameters: Mapping[str, Parameter], *, use_cache: bool
    ) -> Iterator[int]:
        sequence = f"s{next(self._numbers)}"
        whole = np.empty((1, 0), np.int64)

        def logits(given: Array) -> Array:
            nonlocal whole
            whole = np.concatenate([whole, given], axis=1)
            values = {"input_ids": given if use_cache else whole}
            with self._turn:
                self._check_open()
                ended, self._ended = tuple(self._ended), []
                step = Step(sequence=sequence if use_cache else "", is_last_only=True, ends=ended)
                found: Array = self._through(values, step)["logits"].numpy()
            return found

        def end() -> None:
            self._ended.append(sequence)

        answers = generate(
            logits, {"input_ids": ids}, parameters, max_positions=self._max_length, end=end
        )
        for answer in answers:
            yield int(answer["token"][0])

    def _max_positions(self) -> int:
        from cluster.engines.sharded.families import read_config

        config = read_config(self.folder)
        return int(getattr(config, "max_position_embeddings", 0))

    def _tokenizer(self) -> Any:
        from cluster.engines.language.tokens import ModelTokenizer

        if self._tokens is None:
            if not (self.folder / "tokenizer.json").is_file():
                raise ConfigError(
                    f"{self.folder}: no tokenizer.json, so a text cannot be read; give token ids",
                    file=str(self.folder),
                    key="prompt",
                )
            self._tokens = ModelTokenizer(self.folder)
        return self._tokens
