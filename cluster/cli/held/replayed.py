"""Logged decisions made again: `squadron explain --replay`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import ValidationError

from cluster.control import reconcile
from cluster.control.autoscaling import look
from cluster.errors import ConfigError

_LOOK, _PASS = "look {", "pass {"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One decision of a log. `reason` is the logged one; `is_same`: it is made again by what its
    line says; `now`: what is decided instead."""

    line: int
    kind: str
    subject: str
    reason: str
    is_same: bool
    now: str = ""


def replay_file(file: Path) -> Iterator[Replayed]:
    """Every decision that a log holds, of whatever processes; other lines are passed over.

    Raises: ConfigError for a file that cannot be read, or a line of it (cut off, or of another
    version).
    """
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            yield from _replay(lines, str(file))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}", file=str(file)) from None


def _replay(lines: Iterable[str], source: str) -> Iterator[Replayed]:
    for number, line in enumerate(lines, start=1):
        message = _message(line)
        try:
            if (start := message.find(_LOOK)) >= 0:
                yield from _scalings(number, message[start + len(_LOOK) - 1 :].rstrip())
            elif (start := message.find(_PASS)) >= 0:
                yield from _actions(number, message[start + len(_PASS) - 1 :].rstrip())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the line"
            raise ConfigError(
                f"{source}: line {number}: {place}: {first['msg']}; allowed: a whole line as this "
                "version of Squadron wrote it"
            ) from None


def _message(line: str) -> str:
    """A line may be JSON itself, with the text in `message`."""
    if line.startswith("{"):
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            return line
        text = found.get("message")
        return text if isinstance(text, str) else ""
    return line


def _scalings(number: int, text: str) -> Iterator[Replayed]:
    logged = look.replay(text)
    now = {each.variant: each for each in look.decide_again(logged)}
    for each in logged.decisions:
        found = now.get(each.variant)
        if each.is_change or found != each:
            yield Replayed(
                line=number,
                kind="autoscaling",
                subject=each.variant,
                reason=f"{each.num_before} -> {each.num_replicas} replicas: {each.reason}",
                is_same=found == each,
                now="" if found is None else f"{found.num_replicas} replicas: {found.reason}",
            )


def _actions(number: int, text: str) -> Iterator[Replayed]:
    logged = reconcile.replay(text)
    now = reconcile.reconcile(logged.snapshot)
    for action in logged.actions:
        is_same = action in now
        of_same = [each for each in now if _place(each) == _place(action)]
        kind, subject = _place(action)
        yield Replayed(
            line=number,
            kind=kind,
            subject=subject,
            reason=action.reason,
            is_same=is_same,
            now=_reasons(of_same),
        )
    before = {_place(action) for action in logged.actions}
    for action in now:
        if _place(action) not in before:
            kind, subject = _place(action)
            yield Replayed(
                line=number,
                kind=kind,
                subject=subject,
                reason="",
                is_same=False,
                now=action.reason,
            )


def _place(action: reconcile.Action) -> tuple[str, str]:
    if isinstance(action, reconcile.SetState):
        return action.kind, action.variant
    return action.kind, action.experiment


def _reasons(actions: Sequence[reconcile.Action]) -> str:
    return "; ".join(action.reason for action in actions)
