"""The engine span that the thread is in, for what an engine asks of other processes."""

from __future__ import annotations

from contextvars import ContextVar

ENGINE_SPAN: ContextVar[str] = ContextVar("squadron_engine_span", default="")
"""As `actors.tracing.context` writes it; empty where nothing is traced."""
