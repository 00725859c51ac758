"""How runs of requests (`cluster.experiments.asked`) are kept: small ones inside the controller's
document, each larger one once, beside it. A run counts when the document names it, so counts and
what was rated are kept in one step.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import TypeAdapter

from cluster.experiments.asked import Place, Run, unpacked

logger = logging.getLogger("squadron.controller")

MAX_INLINE = 1024
"""Entries of a run inside the document: 11 KB of text."""

_PLACES = TypeAdapter(tuple[Place, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """`content` in base64; empty: it lies beside the document, under its number."""

    number: int
    content: str = ""


class RunKeeper(Protocol):
    """Where the larger ones lie."""

    def runs(self) -> Mapping[int, bytes]:
        """All that there are, by number."""
        ...

    def write_run(self, number: int, content: bytes) -> None: ...

    def drop_run(self, number: int) -> None: ...


class KeptRuns:
    """Writes and drops runs as the document changes."""

    def __init__(self, keeper: RunKeeper) -> None:
        self._keeper = keeper
        self._beside: dict[int, Run] = {}

    def read(self, kept: Mapping[str, tuple[KeptRun, ...]]) -> dict[str, list[Run]]:
        """Experiment -> its runs; what no document names is dropped."""
        beside = self._keeper.runs()
        found: dict[str, list[Run]] = {}
        for experiment, runs in kept.items():
            found[experiment] = []
            for each in runs:
                content = base64.b64decode(each.content) or beside.get(each.number, b"")
                run = _parsed(each.number, content)
                if run is None:
                    logger.warning("of %s, a run of rated requests is lost", experiment)
                    continue
                found[experiment].append(run)
                if not each.content:
                    self._beside[each.number] = run
        for number in beside.keys() - self._beside.keys():
            self._keeper.drop_run(number)
        return found

    def write(self, runs: Mapping[str, Iterable[Run]]) -> dict[str, tuple[KeptRun, ...]]:
        """What the document is to say of them. Call `clean` when it was written."""
        return {name: tuple(self._kept(run) for run in each) for name, each in runs.items() if each}

    def clean(self, runs: Mapping[str, Iterable[Run]]) -> None:
        """Drop what the document, which was written, no longer names."""
        named = {run.number for each in runs.values() for run in each}
        for number in self._beside.keys() - named:
            self._keeper.drop_run(number)
            del self._beside[number]

    def _kept(self, run: Run) -> KeptRun:
        if len(run.entries) <= MAX_INLINE:
            content = base64.b64encode(_dumped(run)).decode()
            return KeptRun(number=run.number, content=content)
        if self._beside.get(run.number) is not run:
            self._keeper.write_run(run.number, _dumped(run))
            self._beside[run.number] = run
        return KeptRun(number=run.number)


def _dumped(run: Run) -> bytes:
    places = _PLACES.dump_json(run.places)
    return len(places).to_bytes(4, "little") + places + run.entries.astype("<u8").tobytes()


def _parsed(number: int, content: bytes) -> Run | None:
    """None for what is empty or broken: its requests cannot be rated any more, that is all."""
    end = 4 + int.from_bytes(content[:4], "little")
    try:
        places = _PLACES.validate_json(content[4:end])
        entries = unpacked(content[end:])
    except ValueError:
        return None
    return Run(number=number, places=places, entries=entries) if len(entries) else None
