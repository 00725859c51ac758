"""The batch of a torch language model: sequences join, get tokens together and leave at any step.

Iteration-level scheduling as in Orca (OSDI 2022): a step computes the next token of every sequence
and at most one piece of a new one's prompt. All of it runs in one thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import nan
from typing import Any

import torch

from cluster.engines.language.kv_slots import CacheStep, KvSlots
from cluster.engines.language.sampler import NoTokenError, Sampler
from cluster.engines.language.text_out import TextOut
from cluster.generation import Delta, FinishReason, ScoredToken, TokenScore

logger = logging.getLogger("squadron.language")

PROMPT_PIECE = 512
"""Tokens of a prompt that one step computes, so that others wait no longer than that."""

SCORED_PIECE = 128
"""Where every token is scored: a row of the vocabulary's size in float32 each."""


@dataclass(slots=True, kw_only=True, eq=False)
class Computed:
    """A prompt that one of its choices has computed, for the others of the request. **Shapes:**
    `logits` `[1, vocabulary]`, after its last token."""

    by: Sequence | None = None
    logits: torch.Tensor | None = None
    scores: list[ScoredToken] = field(default_factory=list)


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One choice of one request. `slot` is -1 while it waits; `last` its newest token."""

    index: int
    prompt: tuple[int, ...]
    max_tokens: int
    min_tokens: int = 0
    eos: frozenset[int]
    stop_tokens: frozenset[int]
    sampler: Sampler
    text: TextOut
    streams: bool
    deliver: Callable[[Delta], None]
    shared: Computed = field(default_factory=Computed)
    priority: int = 0
    slot: int = -1
    num_computed: int = 0
    num_new: int = 0
    last: int = -1
    is_gone: bool = False
    kept_text: str = ""
    kept_ids: list[int] = field(default_factory=list)
    kept_scores: list[ScoredToken] = field(default_factory=list)
    prompt_scores: list[ScoredToken] = field(default_factory=list)

    @property
    def num_reserved(self) -> int:
        return len(self.prompt) + self.max_tokens

    def take(self, token: int, score: ScoredToken | None) -> bool:
        """Add a token and tell of it; whether the sequence has ended."""
        self.num_new += 1
        self.last = token
        reason: FinishReason = ""
        text = ""
        if token in self.eos or token in self.stop_tokens:
            text = self.text.add(token, may_stop=False) if self.text.keeps_stop else ""
            reason, text = "stop", text + self.text.rest()
        else:
            text = self.text.add(token, may_stop=self.num_new > self.min_tokens)
            if self.text.has_stopped:
                reason = "stop"
            elif self.sampler.is_complete:
                reason, text = "stop", text + self.text.rest()
            elif self.num_new >= self.max_tokens:
                reason, text = "length", text + self.text.rest()
        self.kept_text += text
        self.kept_ids.append(token)
        if score is not None:
            self.kept_scores.append(score)
        if self.streams or reason:
            self._tell(reason)
        return bool(reason)

    def fail(self) -> None:
        """Tell that nothing more comes: this request's error, not the engine's."""
        self._tell("abort")

    def _tell(self, reason: FinishReason) -> None:
        delta = Delta(
            index=self.index,
            text=self.kept_text,
            token_ids=tuple(self.kept_ids),
            scores=tuple(self.kept_scores),
            finish_reason=reason,
            prompt_scores=tuple(self.prompt_scores),
        )
        self.kept_text, self.kept_ids, self.kept_scores, self.prompt_scores = "", [], [], []
        self.deliver(delta)


class TorchBatch:
    """`capacity_tokens`: what prompts and answers of all running sequences may need together."""

    def __init__(self, model: Any, slots: KvSlots, *, capacity_tokens: int) -> None:
        self._model = model
        self._slots = slots
        self._capacity = capacity_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    @property
    def kv_usage(self) -> float:
        return sum(self._slots.lengths) / self._capacity

    def add(self, sequence: Sequence) -> None:
        """At the end of its priority's line; a smaller number goes first."""
        place = len(self.waiting)
        while place and self.waiting[place - 1].priority > sequence.priority:
            place -= 1
        self.waiting.insert(place, sequence)

    def step(self) -> None:
        """A piece of the first prompt that is not computed yet, else one token for everybody."""
        self._drop_gone()
        self._admit()
        with torch.inference_mode():
            fresh = [each for each in self.running if each.num_computed < len(each.prompt)]
            # Prompts first: a step of all needs everybody's prompt in its slot.
            if fresh:
                self._compute_prompt(fresh[0])
            else:
                self._compute_tokens()

    def clear(self) -> list[Sequence]:
        """Everybody, when the engine fails."""
        everybody = [*self.running, *self.waiting]
        self.running.clear()
        self.waiting.clear()
        while self._slots.lengths:
            self._slots.leave(len(self._slots.lengths) - 1)
        return everybody

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._slots.max_slots:
            reserved = sum(each.num_reserved for each in self.running)
            if self.running and reserved + self.waiting[0].num_reserved > self._capacity:
                return
            sequence = self.waiting.popleft()
            sequence.slot = self._slots.join()
            self.running.append(sequence)

    def _drop_gone(self) -> None:
        self.waiting = deque(each for each in self.waiting if not each.is_gone)
        for sequence in [each for each in self.running if each.is_gone]:
            self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        moved = self._slots.leave(sequence.slot)
        last = self.running[moved]
        last.slot = sequence.slot
        self.running[sequence.slot] = last
        self.running.pop()
        sequence.slot = -1

    def _compute_prompt(self, sequence: Sequence) -> None:
        shared = sequence.shared
        if shared.logits is not None and shared.by is not None and shared.by.slot >= 0:
            self._slots.copy(shared.by.slot, sequence.slot, len(sequence.prompt))
            sequence.num_computed = len(sequence.prompt)
            sequence.prompt_scores = list(shared.scores)
            shared.by = sequence
            self._give([sequence], shared.logits)
            return
        begin = sequence.num_computed
        is_scored = sequence.sampler.scores_prompt
        piece = sequence.prompt[begin : begin + (SCORED_PIECE if is_scored else PROMPT_PIECE)]
        step = self._slots.step_of_one(sequence.slot, len(piece))
        logits = self._forward([list(piece)], step, num_kept=len(piece) if is_scored else 1)
        if is_scored:
            end = begin + len(piece)
            if not begin:
                first = TokenScore(token_id=piece[0], logprob=nan)
                sequence.prompt_scores.append(ScoredToken(chosen=first))
            after = sequence.prompt[begin + 1 : end + 1]
            sequence.prompt_scores += sequence.sampler.of_prompt(logits[: len(after)], after)
            logits = logits[-1:]
        sequence.num_computed += len(piece)
        if sequence.num_computed == len(sequence.prompt):
            shared.by, shared.logits = sequence, logits
            shared.scores = list(sequence.prompt_scores)
            self._give([sequence], logits)

    def _compute_tokens(self) -> None:
        if not self.running:
            return
        step = self._slots.step_of_all()
        logits = self._forward([[each.last] for each in self.running], step)
        self._give(list(self.running), logits)

    def _forward(
        self, token_ids: list[list[int]], step: CacheStep, *, num_kept: int = 1
    ) -> torch.Tensor:
        """Each row's last `num_kept`. **Shapes:** `[rows * num_kept, vocabulary]`, float32."""
        ids = torch.tensor(token_ids, device=step.positions.device)
        found = self._model(
            input_ids=ids,
            position_ids=step.positions,
            attention_mask=step.masks(),
            past_key_values=step,
            use_cache=True,
            logits_to_keep=num_kept,
        )
        logits: torch.Tensor = found.logits[:, -num_kept:].flatten(0, 1).float()
        return logits.cpu()

    def _give(self, sequences: list[Sequence], logits: torch.Tensor) -> None:
        best = logits.argmax(dim=-1).tolist()
        for row, sequence in enumerate(sequences):
            if sequence.sampler.is_plain:
                token, score = best[row], None
                sequence.sampler.took(token)
            else:
                try:
                    token, score = sequence.sampler.choose(logits[row])
                except NoTokenError as error:
                    logger.info("a request is given up: %s", error)
                    sequence.fail()
                    self._leave(sequence)
                    continue
                except Exception:
                    # What one request asks for must not end what the others get.
                    logger.exception("a token could not be chosen")
                    sequence.fail()
                    self._leave(sequence)
                    continue
            if sequence.take(token, score):
                self._leave(sequence)
