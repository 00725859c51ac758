"""vLLM's statistics of single steps, added up. They are its own dataclasses; only names matter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.engines.language.vllm import StepCounts


def step(guessed: int | None, accepted: int = 0) -> Any:
    guesses = SimpleNamespace(num_draft_tokens=guessed, num_accepted_tokens=accepted)
    return SimpleNamespace(
        num_running_reqs=2,
        num_waiting_reqs=1,
        kv_cache_usage=0.25,
        prefix_cache_stats=SimpleNamespace(queries=10, hits=4),
        spec_decoding_stats=None if guessed is None else guesses,
    )


def test_guesses_and_those_that_were_kept_add_up() -> None:
    counts = StepCounts()
    counts.add(step(4, 3), None)
    counts.add(step(None), SimpleNamespace(num_preempted_reqs=1))
    counts.add(step(4, 0), None)

    found = counts.now()

    assert (found.draft_tokens, found.accepted_tokens) == (8, 3)
    assert (found.prefix_queries, found.prefix_hits, found.preemptions) == (30, 12, 1)
    assert (found.num_running, found.num_waiting, found.kv_usage) == (2, 1, 0.25)
