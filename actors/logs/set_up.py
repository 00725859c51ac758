"""Log lines of this process: as the libraries write them, or each one JSON object."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from actors.logs.line import LINE
from cluster.config.observability.logs import LogsConfig

ACCESS = "squadron.access_log"
_OTHERS = ("ray", "ray.serve", "vllm")
"""Loggers of this process that have handlers of their own."""


class JsonLines(logging.Formatter):
    """One object a line; `facts` are in each of them."""

    def __init__(self, facts: dict[str, str | int]) -> None:
        super().__init__()
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._facts,
        }
        fields = getattr(record, "squadron", None)
        if fields is not None:
            line.update(fields)
        elif (asked := LINE.get()) is not None:
            line["request_id"] = asked.request_id
            line["trace_id"] = asked.trace_id
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class AccessLines(logging.Formatter):
    """The access log as text. What callers chose is quoted: it may hold a line's end."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "squadron", {}))
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = " ".join(
            f"{name}={orjson.dumps(value).decode()}" for name, value in fields.items() if value
        )
        return f"{time} access {told}"


def write_decisions() -> None:
    """Lines of ours from INFO on go to standard error as text, until a door tells otherwise: what
    was decided is a line of that level, and Python by itself writes none of them."""
    ours = logging.getLogger("squadron")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours.handlers = [handler]
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)


def set_up_logs(logs: LogsConfig, *, role: str, **facts: str | int) -> None:
    """`role`: door, replica, controller, autoscaler or shard; with `facts` in every JSON line. Once
    a process; again, it changes nothing but that. What is printed past Python's logging stays as it
    is."""
    json = JsonLines({"role": role, **facts, "pid": os.getpid()})
    if logs.format == "json":
        _write_json(json)
        logging.getLogger("squadron.logs").info("this process writes its lines as JSON")
    if logs.access_log:
        access = logging.getLogger(ACCESS)
        access.setLevel(logging.INFO)
        access.propagate = False
        access.handlers = [logging.StreamHandler(sys.stderr)]
        access.handlers[0].setFormatter(json if logs.format == "json" else AccessLines())


def _write_json(json: JsonLines) -> None:
    root = logging.getLogger()
    if not any(isinstance(each.formatter, JsonLines) for each in root.handlers):
        root.addHandler(logging.StreamHandler(sys.stderr))
    for name in (None, *_OTHERS):
        for handler in _with_targets(logging.getLogger(name).handlers):
            handler.setFormatter(json)
    ours = logging.getLogger("squadron")
    ours.handlers.clear()  # its lines reach the root's
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)
    logging.captureWarnings(True)


def _with_targets(handlers: Iterable[logging.Handler]) -> Iterable[logging.Handler]:
    """Serve keeps lines back in a handler that hands them to another one."""
    for handler in handlers:
        yield handler
        target = getattr(handler, "target", None)
        if isinstance(target, logging.Handler):
            yield target
