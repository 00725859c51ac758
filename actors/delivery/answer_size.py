"""No answer is larger than its callers can be expected to take."""

from __future__ import annotations

from prometheus_client import Counter

from cluster.errors import PayloadTooLarge


class AnswerSizes:
    """Asked for each answer, and each message of a stream, once it is encoded."""

    def __init__(self, max_bytes: int, refused: Counter) -> None:
        self._max_bytes = max_bytes
        self._refused = refused

    def check(self, num_bytes: int, variant: str) -> None:
        """Raises: PayloadTooLarge."""
        if num_bytes <= self._max_bytes:
            return
        self._refused.labels(variant).inc()
        raise PayloadTooLarge(
            f"the answer has {num_bytes} bytes, at most {self._max_bytes} are sent "
            "(limits.max_response_bytes); ask for fewer rows or outputs"
        )
