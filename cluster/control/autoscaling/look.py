"""One look at all autoscaled variants as a line of the log that can be decided again.

A fleet learns from every look, and only those are logged that change a number; so a line holds what
the fleet had learned before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from cluster.control.autoscaling.fleet import FleetLoad, FleetState, restored
from cluster.control.autoscaling.load import Scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was known before, what was seen, and what was decided of both."""

    state: FleetState
    load: FleetLoad
    decisions: tuple[Scaling, ...]


_LOOK = TypeAdapter(Look)


def record(look: Look) -> str:
    """One line of JSON."""
    return _LOOK.dump_json(look).decode()


def replay(line: str) -> Look:
    """What `record` wrote; `decide_again` of it gives its decisions. Raises: ValidationError."""
    return _LOOK.validate_json(line)


def decide_again(look: Look) -> tuple[Scaling, ...]:
    """By the code of now, from nothing but the look."""
    return restored(look.state).decide(look.load)
