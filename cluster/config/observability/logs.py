"""How the processes of the server write their log lines."""

from __future__ import annotations

from typing import Literal

from cluster.config.section import Section


class LogsConfig(Section):
    """`format: json`: every line one JSON object, with the request and the trace that it belongs
    to. `access_log`: a line a request with its API key's id, without bodies and keys."""

    format: Literal["text", "json"] = "text"
    access_log: bool = False
