"""How often a serving process looks for garbage that reference counts did not free."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
"""Before a look at the young ones. A request makes about thirty objects and leaves no cycle behind;
with Python's own 700 the looks took 6 % of a door's time (measured at 64 connections)."""


def collect_rarely() -> None:
    """Call when the process has loaded what it needs: none of that is ever looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 100)
