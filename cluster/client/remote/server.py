"""The one interface of a server, whatever is spoken with it."""

from __future__ import annotations

from typing import Protocol

from cluster.client.backend import Backend


class Server(Protocol):
    """Safe to use from several threads. Raises from every call: SquadronError with the server's
    words; NoReadyReplica when it cannot be reached, DeadlineExceeded when it takes too long."""

    def open(self, model: str) -> Backend:
        """A model by NAME or NAME/VERSION. Raises: ModelNotFound."""

    def is_ready(self) -> bool:
        """Whether it can serve all its models; false when it cannot be reached."""

    def model_names(self) -> list[str]: ...

    def load(self, model: str, config: str) -> None:
        """Have it load a model; `config`: Triton's `ModelConfig` as JSON, laid over what is
        configured. Raises: DeadlineExceeded while it is still loading."""

    def close(self) -> None:
        """End every connection."""
