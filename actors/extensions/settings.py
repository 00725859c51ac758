"""One door's trace and logging settings, and what they do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from actors.front_door import FrontDoor
from cluster.errors import ModelNotFound
from cluster.protocols.extensions.settings import (
    TRACE_DEFAULTS,
    LogSettings,
    TraceChange,
    TraceValue,
    trace_change,
)


class DoorSettings:
    """Lives as long as its door: with several doors a change reaches the one that was asked."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._trace: dict[str, TraceValue] = {}
        self._trace_of: dict[str, dict[str, TraceValue]] = {}
        self.log = LogSettings()

    def trace(self, model: str = "") -> dict[str, TraceValue]:
        """The settings in force: the model's own, else the server's, else the defaults.

        Raises: ModelNotFound.
        """
        self._check_known(model)
        return {**TRACE_DEFAULTS, **self._trace, **self._trace_of.get(model, {})}

    def change_trace(self, content: Mapping[str, Any], model: str = "") -> dict[str, TraceValue]:
        """The settings after the change. Raises: InvalidRequest, Unsupported, ModelNotFound."""
        self._check_known(model)
        change = trace_change(content)
        _apply(change, self._trace_of.setdefault(model, {}) if model else self._trace)
        return self.trace(model)

    def change_log(self, content: Mapping[str, Any]) -> LogSettings:
        """The settings after the change, which is in force at once.

        Raises: InvalidRequest, Unsupported.
        """
        self.log = self.log.changed(content)
        logging.getLogger("squadron").setLevel(_level(self.log))
        return self.log

    def _check_known(self, model: str) -> None:
        if model and model not in self._door.table.routes:
            raise ModelNotFound(f"Request for unknown model : {model[:200]}")


def _apply(change: TraceChange, to: dict[str, TraceValue]) -> None:
    for name, value in change.items():
        if value is None:
            to.pop(name, None)
        else:
            to[name] = value


def _level(settings: LogSettings) -> int:
    """Python's levels nest: what is lowest among those switched on."""
    if settings.log_verbose_level > 0:
        return logging.DEBUG
    if settings.log_info:
        return logging.INFO
    if settings.log_warning:
        return logging.WARNING
    return logging.ERROR if settings.log_error else logging.CRITICAL
