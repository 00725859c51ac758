"""Choosing the next token of one sequence from its logits. Order and meaning as in vLLM: bias and
penalties, grammar, temperature, then min-p, top-k and top-p; log-probabilities are of the raw ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cluster.generation import Sampling, ScoredToken, TokenScore

_GREEDY_BELOW = 1e-5


class NoTokenError(Exception):
    """Nothing can follow as the request asks."""


class Sampler:
    """Of one sequence. `matcher` is llguidance's, None without a grammar."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        *,
        index: int,
        eos: Sequence[int],
        matcher: Any = None,
    ) -> None:
        self._sampling = sampling
        self._eos = list(eos)
        self._matcher = matcher
        self._seen: Counter[int] = Counter()
        self._prompt = torch.tensor(sorted(set(prompt)), dtype=torch.long)
        self._allowed: torch.Tensor | None = None
        if sampling.allowed_token_ids:
            self._allowed = torch.tensor(sorted(set(sampling.allowed_token_ids)), dtype=torch.long)
        self._num_drawn = 0
        self._generator = torch.Generator()
        if sampling.seed is not None:
            self._generator.manual_seed((sampling.seed + index) % 2**63)
        else:
            self._generator.seed()
        self.is_plain = self._is_plain()

    def _is_plain(self) -> bool:
        """Whether it takes the greatest logit, and nobody asks how likely it was."""
        asked = self._sampling
        return (
            asked.temperature < _GREEDY_BELOW
            and self._matcher is None
            and not asked.logit_bias
            and not (asked.presence_penalty or asked.frequency_penalty)
            and asked.repetition_penalty == 1.0
            and asked.min_tokens == 0
            and not asked.allowed_token_ids
            and asked.num_logprobs is None
        )

    @property
    def scores_prompt(self) -> bool:
        return self._sampling.scores_prompt

    def of_prompt(self, logits: torch.Tensor, tokens: Sequence[int]) -> list[ScoredToken]:
        """The prompt's tokens after each row. **Shapes:** `logits` `[tokens, vocabulary]`."""
        scored = (self._scored(row, token) for row, token in zip(logits, tokens, strict=True))
        return [each for each in scored if each is not None]

    @property
    def is_complete(self) -> bool:
        """Whether the grammar allows nothing more."""
        return self._matcher is not None and bool(self._matcher.is_stopped())

    def choose(self, logits: torch.Tensor) -> tuple[int, ScoredToken | None]:
        """**Shapes:** `logits` `[vocabulary]`, float32, left as they are."""
        raw, logits = logits, logits.clone()
        self._shift(logits)
        if self._matcher is not None or self._allowed is not None:
            self._constrain(logits)
            if bool(logits.max() == -math.inf):
                # What is left of the grammar was banned (`min_tokens`): the grammar goes first.
                logits = raw.clone()
                self._constrain(logits)
            if bool(logits.max() == -math.inf):
                raise NoTokenError("no token is allowed")
        token = self._pick(logits)
        self._num_drawn += 1
        self._seen[token] += 1
        if self._matcher is not None:
            self._matcher.consume_token(token)
            if self._matcher.is_error():
                # It would count as complete, and what came so far as an answer.
                raise NoTokenError("the grammar cannot be followed")
        return token, self._scored(raw, token)

    def took(self, token: int) -> None:
        """A token that was chosen without this sampler's help (see `is_plain`)."""
        self._num_drawn += 1

    def _shift(self, logits: torch.Tensor) -> None:
        asked = self._sampling
        if asked.repetition_penalty != 1.0:
            again = torch.tensor(sorted(self._seen), dtype=torch.long)
            index = torch.unique(torch.cat([self._prompt, again]))
            there = logits[index]
            factor = asked.repetition_penalty
            logits[index] = torch.where(there > 0, there / factor, there * factor)
        if self._seen and (asked.presence_penalty or asked.frequency_penalty):
            index = torch.tensor(list(self._seen), dtype=torch.long)
            counts = torch.tensor(list(self._seen.values()), dtype=logits.dtype)
            logits[index] -= asked.frequency_penalty * counts + asked.presence_penalty
        for token, bias in asked.logit_bias.items():
            logits[token] += bias
        is_early = self._num_drawn < asked.min_tokens
        if self._eos and is_early:
            logits[self._eos] = -math.inf
        if is_early and asked.stop_token_ids:
            logits[list(asked.stop_token_ids)] = -math.inf

    def _constrain(self, logits: torch.Tensor) -> None:
        size = logits.shape[0]
        if self._allowed is not None:
            kept = logits[self._allowed].clone()
            logits.fill_(-math.inf)
            logits[self._allowed] = kept
        if self._matcher is None:
            return
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[:size].astype(bool)
        logits[: allowed.shape[0]][~torch.from_numpy(allowed)] = -math.inf
        logits[allowed.shape[0] :] = -math.inf

    def _pick(self, logits: torch.Tensor) -> int:
        asked = self._sampling
        if asked.temperature < _GREEDY_BELOW:
            return int(logits.argmax())
        logits /= asked.temperature
        # A penalty or a temperature near 0 leaves infinities, and of two of them there is no share.
        logits.nan_to_num_(nan=-math.inf, posinf=torch.finfo(logits.dtype).max, neginf=-math.inf)
        if asked.min_p > 0:
            floor = logits.max() + math.log(asked.min_p)
            logits[logits < floor] = -math.inf
        if 0 < asked.top_k < logits.shape[0]:
            floor = torch.topk(logits, asked.top_k).values[-1]
            logits[logits < floor] = -math.inf
        if asked.top_p < 1.0:
            ranked, order = torch.sort(logits, descending=True)
            shares = torch.softmax(ranked, dim=-1)
            # The first one that reaches top_p stays in.
            beyond = shares.cumsum(dim=-1) - shares >= asked.top_p
            beyond[0] = False
            logits[order[beyond]] = -math.inf
        shares = torch.softmax(logits, dim=-1)
        return int(torch.multinomial(shares, 1, generator=self._generator))

    def _scored(self, raw: torch.Tensor, token: int) -> ScoredToken | None:
        wanted = self._sampling.num_logprobs
        if wanted is None:
            return None
        logprobs = torch.log_softmax(raw, dim=-1)
        top: tuple[TokenScore, ...] = ()
        if wanted:
            values, indices = torch.topk(logprobs, wanted)
            pairs = zip(indices.tolist(), values.tolist(), strict=True)
            top = tuple(TokenScore(token_id=each, logprob=value) for each, value in pairs)
        chosen = TokenScore(token_id=token, logprob=float(logprobs[token]))
        return ScoredToken(chosen=chosen, top=top)
