"""A value on the terminal: once or every second, drawn or as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.errors import ConfigError

WATCH_S = 1.0

console = Console(highlight=False)


def show(
    found: Callable[[], Any],
    drawn: Callable[[Any], RenderableType],
    *,
    as_json: bool,
    watch: bool,
) -> None:
    """Once, or every `WATCH_S` until Ctrl-C. Raises: what `found` raises, the first time; later a
    server that does not answer is told of, and asked again."""
    if not watch:
        print_value(found(), drawn, as_json=as_json)
        return
    try:
        value = found()  # what is wrong from the beginning ends it
        if as_json:
            while True:
                print(json.dumps(value), flush=True)
                value = _seen_again(found)
        with Live(drawn(value), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(WATCH_S)
                try:
                    value = found()
                    live.update(drawn(value), refresh=True)
                except ConfigError as error:
                    # Whoever watches wants to see it come back.
                    live.update(Group(drawn(value), Text(str(error), style="red")), refresh=True)
    except KeyboardInterrupt:
        return


def _seen_again(found: Callable[[], Any]) -> Any:
    """The next value; what does not answer is told on stderr, and asked again."""
    while True:
        time.sleep(WATCH_S)
        try:
            return found()
        except ConfigError as error:
            print(error, file=sys.stderr, flush=True)


def print_value(value: Any, drawn: Callable[[Any], RenderableType], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value))
    else:
        console.print(drawn(value))


def table_of(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False)
