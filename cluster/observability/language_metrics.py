"""What language models tell of themselves, passed on from their engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FIRST_TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BETWEEN_TOKENS_BUCKETS_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageMetrics:
    """Label `model` is the variant."""

    first_token_seconds: Histogram
    between_tokens_seconds: Histogram
    prompt_tokens: Counter
    generated_tokens: Counter
    running: Gauge
    waiting: Gauge
    kv_usage: Gauge
    prefix_queries: Counter
    prefix_hits: Counter
    preemptions: Counter
    draft_tokens: Counter
    accepted_tokens: Counter


def declare_language_metrics(registry: CollectorRegistry) -> LanguageMetrics:
    """After `make_metrics`, which says where the numbers go."""
    labels = ("model",)

    def counter(name: str, text: str) -> Counter:
        return Counter(f"squadron_llm_{name}", text, labels, registry=registry)

    def gauge(name: str, text: str, mode: Literal["livesum", "livemax"]) -> Gauge:
        return Gauge(
            f"squadron_llm_{name}", text, labels, registry=registry, multiprocess_mode=mode
        )

    return LanguageMetrics(
        first_token_seconds=Histogram(
            "squadron_llm_first_token_seconds",
            "From a request's arrival in the replica to its first token.",
            labels,
            registry=registry,
            buckets=FIRST_TOKEN_BUCKETS_S,
        ),
        between_tokens_seconds=Histogram(
            "squadron_llm_between_tokens_seconds",
            "Between two pieces of one choice.",
            labels,
            registry=registry,
            buckets=BETWEEN_TOKENS_BUCKETS_S,
        ),
        prompt_tokens=counter("prompt_tokens_total", "Tokens of prompts."),
        generated_tokens=counter("generated_tokens_total", "Tokens that were generated."),
        running=gauge("running", "Choices that the engine computes.", "livesum"),
        waiting=gauge("waiting", "Requests that wait for the engine.", "livesum"),
        kv_usage=gauge("kv_usage_ratio", "Part of the KV memory that requests hold.", "livemax"),
        prefix_queries=counter(
            "prefix_queries_total", "Prompt tokens looked up in the prefix cache."
        ),
        prefix_hits=counter("prefix_hits_total", "Prompt tokens found in the prefix cache."),
        preemptions=counter("preemptions_total", "Choices put back for want of KV memory."),
        draft_tokens=counter("draft_tokens_total", "Tokens that speculation guessed."),
        accepted_tokens=counter("accepted_tokens_total", "Guessed tokens that were kept."),
    )
