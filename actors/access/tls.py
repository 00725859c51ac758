"""TLS of a door's ports. Certificates that change are used from the next handshake on."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import NoReturn

import grpc

from cluster.config.security.files import check_readable
from cluster.config.security.tls import TlsConfig
from cluster.errors import ConfigError

logger = logging.getLogger("squadron.access")

_Seen = tuple[tuple[int, int, int], ...]


class ServerTls:
    """What listeners need to speak TLS. Of one door."""

    def __init__(self, config: TlsConfig) -> None:
        """Raises: ConfigError naming key and file."""
        self._config = config
        self._files = [Path(each) for each in (config.cert, config.key, config.client_ca) if each]
        self._seen = self._look()
        self._newest = make_context(config)
        # Made once, for a listener cannot change it; what it hands a caller can.
        self.context = make_context(config)
        self.context.sni_callback = self._hand_newest

    def credentials(self) -> grpc.ServerCredentials:
        seen = self._look()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal seen
            now = self._look()
            if now == seen:
                return None
            seen = now
            try:
                make_context(self._config)  # gRPC itself would end in a log line of C++
                return self._grpc_files()
            except (ConfigError, OSError) as error:
                logger.error("the certificates stay as they were: %s", error)
                return None

        return grpc.dynamic_ssl_server_credentials(
            self._grpc_files(),
            changed,
            require_client_authentication=bool(self._config.client_ca),
        )

    def _hand_newest(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, old: ssl.SSLContext
    ) -> None:
        """Called in every handshake, also of callers that name no server."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._newest = make_context(self._config)
                logger.info("the certificates were read again from %s", self._config.cert)
            except ConfigError as error:
                logger.error("the certificates stay as they were: %s", error.message)
        connection.context = self._newest

    def _look(self) -> _Seen | None:
        try:
            found = [each.stat() for each in self._files]
        except OSError:
            return None
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)

    def _grpc_files(self) -> grpc.ServerCertificateConfiguration:
        pair = (Path(self._config.key).read_bytes(), Path(self._config.cert).read_bytes())
        ca = Path(self._config.client_ca).read_bytes() if self._config.client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=ca)


def make_context(config: TlsConfig) -> ssl.SSLContext:
    """Raises: ConfigError naming key and file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for name in ("cert", "key", "client_ca"):
        file = getattr(config, name)
        if file:
            check_readable(f"server.tls.{name}", Path(file))
    try:
        context.load_cert_chain(config.cert, config.key, password=_refuse_password)
    except ssl.SSLError as error:
        raise ConfigError(
            f"server.tls: {config.cert} and {config.key} are no certificate and its key: "
            f"{error.reason or error}; allowed: PEM files",
            key="server.tls",
        ) from None
    if config.client_ca:
        try:
            context.load_verify_locations(config.client_ca)
        except ssl.SSLError as error:
            raise ConfigError(
                f"server.tls.client_ca: {config.client_ca} holds no certificates: "
                f"{error.reason or error}; allowed: a PEM file",
                key="server.tls.client_ca",
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session shows no certificate: one of an authority that was taken away would
        # still come in.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def _refuse_password() -> NoReturn:
    # OpenSSL would ask for it at a terminal that nobody watches.
    raise ConfigError("server.tls.key: the key is encrypted; allowed: a key without a password")
