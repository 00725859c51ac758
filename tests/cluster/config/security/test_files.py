from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.security.files import check_files
from cluster.config.server import ServerConfig
from cluster.errors import ConfigError


def told(**server: object) -> str:
    with pytest.raises(ConfigError) as wrong:
        check_files(ServerConfig.model_validate(server))
    return wrong.value.message


def test_a_file_that_is_missing_is_told_with_its_key(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("any")
    missing = str(tmp_path / "none")

    assert told(api_keys=missing).startswith(f"server.api_keys: {missing}: no such file")
    assert told(tls={"cert": missing, "key": missing}) == (
        f"server.tls.cert: {missing}: No such file or directory"
    )
    assert told(tls={"cert": str(cert), "key": str(cert), "client_ca": missing}).startswith(
        f"server.tls.client_ca: {missing}"
    )


def test_a_server_without_keys_and_tls_needs_no_files() -> None:
    check_files(ServerConfig())
