from __future__ import annotations

import pytest

from loadtests.breakdown import part_of, shares_of

LOOP = "main (loadtests/without_ray.py:9);Runner.run (asyncio/runners.py:118)"
READ = f"{LOOP};HttpConnection.data_received (actors/x.py:1);HttpReader.feed (actors/x.py:2)"
SENT = f"{READ};Dispatcher._flush (actors/x.py:3);BatchRunner.run_here (actors/x.py:4)"


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        (LOOP, "event loop, epoll, socket read"),
        (READ, "HTTP parsing"),
        (SENT, "joining and splitting the batch"),
        (f"{SENT};Session.run (onnxruntime/x.py:5)", "ONNX Runtime"),
        # What belongs to nobody counts for who called it.
        (f"{SENT};vstack (numpy/x.py:6)", "joining and splitting the batch"),
        (f"{SENT};HttpConnection.write (actors/x.py:7)", "socket write"),
        ("main (x.py:1)", "other"),
    ],
)
def test_a_sample_counts_for_the_innermost_part(stack: str, part: str) -> None:
    assert part_of(stack) == part


def test_shares_are_of_all_samples_largest_first() -> None:
    found = shares_of(f"{LOOP} 1\n{READ} 2\n{SENT} 5\n")
    assert list(found.items()) == [
        ("joining and splitting the batch", 0.625),
        ("HTTP parsing", 0.25),
        ("event loop, epoll, socket read", 0.125),
    ]
