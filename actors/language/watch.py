"""Counting what a language model does: tokens, waiting for the first and between two of them."""

from __future__ import annotations

import time

from cluster.generation import Delta, EngineLoad, Sampling
from cluster.observability.language_metrics import LanguageMetrics


class Watch:
    """Of one variant."""

    def __init__(self, metrics: LanguageMetrics, variant: str) -> None:
        self._first = metrics.first_token_seconds.labels(variant)
        self._between = metrics.between_tokens_seconds.labels(variant)
        self._prompt_tokens = metrics.prompt_tokens.labels(variant)
        self._generated = metrics.generated_tokens.labels(variant)
        self._gauges = [
            each.labels(variant) for each in (metrics.running, metrics.waiting, metrics.kv_usage)
        ]
        self._counters = [
            each.labels(variant)
            for each in (
                metrics.prefix_queries,
                metrics.prefix_hits,
                metrics.preemptions,
                metrics.draft_tokens,
                metrics.accepted_tokens,
            )
        ]
        self._last = EngineLoad()

    def request(self, arrived_s: float, num_prompt_tokens: int, sampling: Sampling) -> RequestWatch:
        """`num_prompt_tokens`: of all its prompts."""
        self._prompt_tokens.inc(num_prompt_tokens)
        return RequestWatch(self, arrived_s, streams=sampling.streams)

    def look(self, load: EngineLoad, *, num_waiting: int) -> None:
        """Bring the gauges and the engine's own counters up to now."""
        values = (load.num_running, load.num_waiting + num_waiting, load.kv_usage)
        for gauge, value in zip(self._gauges, values, strict=True):
            gauge.set(value)
        last = self._last
        grown = (
            load.prefix_queries - last.prefix_queries,
            load.prefix_hits - last.prefix_hits,
            load.preemptions - last.preemptions,
            load.draft_tokens - last.draft_tokens,
            load.accepted_tokens - last.accepted_tokens,
        )
        for counter, more in zip(self._counters, grown, strict=True):
            counter.inc(more)
        self._last = load

    def first(self, seconds: float) -> None:
        self._first.observe(seconds)

    def between(self, seconds: float) -> None:
        self._between.observe(seconds)

    def generated(self, num_tokens: int) -> None:
        self._generated.inc(num_tokens)


class RequestWatch:
    """Of one request. Where the answer comes whole there is nothing between tokens to see."""

    def __init__(self, watch: Watch, arrived_s: float, *, streams: bool) -> None:
        self._watch = watch
        self._arrived_s = arrived_s
        self._streams = streams
        self._last_s: dict[int, float] = {}

    def saw(self, index: int, delta: Delta) -> None:
        self._watch.generated(len(delta.token_ids))
        if not self._streams:
            return
        now_s = time.perf_counter()
        last_s = self._last_s.get(index)
        if last_s is not None:
            self._watch.between(now_s - last_s)
        elif not self._last_s:
            self._watch.first(now_s - self._arrived_s)
        self._last_s[index] = now_s
