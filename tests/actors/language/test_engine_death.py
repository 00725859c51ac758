"""A replica whose engine is gone ends itself, so that doors try elsewhere what they may."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.language.replica import LanguageReplica
from cluster.errors import EngineFailed
from tests.actors.language.test_counted_tokens import COMPLETIONS, body, replies, tiny
from tests.contracts.test_language_engines import folder

__all__ = ["folder"]


async def started(folder: Path, metrics_at: Path) -> tuple[LanguageReplica, list[str]]:
    """The replica, and the reasons for which it would have ended its process."""
    reasons: list[str] = []
    made = LanguageReplica(tiny(folder), metrics_at=metrics_at, end=reasons.append)
    await made.start()
    return made, reasons


def break_engine(replica: LanguageReplica) -> None:
    engine: Any = replica._engine

    def fail() -> None:
        raise RuntimeError("out of registers")

    engine._batch.step = fail


async def test_a_failed_engine_ends_its_replica(folder: Path, tmp_path: Path) -> None:
    replica, reasons = await started(folder, tmp_path)
    break_engine(replica)

    (reply,) = await replies(replica, body(), **COMPLETIONS)

    assert isinstance(reply.error, EngineFailed)
    assert reasons[0] == "the language engine failed: RuntimeError"
    await replica.close()


async def test_an_engine_that_fails_unasked_is_noticed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.language.replica.LOOK_S", 0.01)
    replica, reasons = await started(folder, tmp_path)
    engine: Any = replica._engine
    engine._failure = "the language engine failed: OSError"

    while not reasons:  # noqa: ASYNC110  (nobody tells; the test's limit ends it)
        await asyncio.sleep(0.01)

    assert reasons[0] == "the language engine failed: OSError"
    await replica.close()


async def test_a_refused_request_and_a_shutdown_end_nothing(folder: Path, tmp_path: Path) -> None:
    replica, reasons = await started(folder, tmp_path)

    (reply,) = await replies(replica, body(max_tokens=-1), **COMPLETIONS)
    await replica.close()

    assert reply.error is not None
    assert reasons == []
