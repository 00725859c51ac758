"""Encryption of the doors."""

from __future__ import annotations

from pydantic import Field

from cluster.config.section import Section


class TlsConfig(Section):
    """PEM files, read again when they change. `cert` holds the server's certificate and those
    between it and the root. With `client_ca` only callers with a certificate of that authority are
    served. Holds for all three ports. Relative to where Serve was started.
    """

    cert: str = Field(min_length=1)
    key: str = Field(min_length=1)
    client_ca: str = ""
