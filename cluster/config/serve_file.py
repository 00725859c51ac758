"""A Serve config file: Ray Serve's own keys checked here, ours under `args:`."""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import Field, field_validator

from cluster.config.section import Mistake, Mistakes, Section
from cluster.config.security.exposure import check_second_door
from cluster.config.security.references import WHY
from cluster.config.security.secret_names import secret_variables
from cluster.config.squadron import SquadronConfig
from cluster.config.yaml_file import check_section, read_mapping
from cluster.errors import ConfigError

IMPORT_PATH = "actors.app:build"


class ServeHttpOptions(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    request_timeout_s: float | None = None
    keep_alive_timeout_s: int | None = None
    root_path: str = ""


class ServeLogging(Section):
    encoding: str = "TEXT"
    log_level: str | int = "INFO"
    logs_dir: str | None = None
    enable_access_log: bool = True


class ServeApplication(Section):
    name: str = "default"
    route_prefix: str | None = "/"
    import_path: str
    runtime_env: dict[str, object] = Field(default_factory=dict)
    args: dict[str, object] = Field(default_factory=dict)

    @field_validator("runtime_env")
    @classmethod
    def _shows_no_secret(cls, given: dict[str, object]) -> dict[str, object]:
        mistakes = [
            Mistake(
                key=f"env_vars.{name}",
                text=f"looks like a secret, and {WHY}, runtime_env as well",
                value="",
                allowed="the environment that Ray is started in (in pods: secretKeyRef)",
            )
            for name in secret_variables(given)
        ]
        if mistakes:
            raise Mistakes(mistakes)
        return given


class ServeFile(Section):
    """The keys of Ray Serve 2.60's schema that our files use. Serve itself accepts any typo."""

    proxy_location: str | None = None
    http_options: ServeHttpOptions = ServeHttpOptions()
    logging_config: ServeLogging | None = None
    applications: tuple[ServeApplication, ...] = Field(min_length=1)


def read_serve_file(path: Path) -> tuple[ServeFile, SquadronConfig]:
    """The file and the Squadron configuration in it.

    Raises: ConfigError naming file, key, value and what is allowed.
    """
    serve_file = check_section(read_mapping(path), ServeFile, source=str(path))
    ours = [app for app in serve_file.applications if app.import_path == IMPORT_PATH]
    if len(ours) != 1:
        given = [app.import_path for app in serve_file.applications]
        is_near = not ours and difflib.get_close_matches(IMPORT_PATH, given)
        hint = f" (did you mean {IMPORT_PATH!r}?)" if is_near else ""
        raise ConfigError(
            f"{path}: applications: exactly one must have import_path {IMPORT_PATH!r}, "
            f"got {given}{hint}",
            file=str(path),
            key="applications",
            allowed=IMPORT_PATH,
        )
    config = check_section(ours[0].args, SquadronConfig, source=place_of(path, serve_file))
    if serve_file.proxy_location != "Disabled":
        check_second_door(serve_file.http_options.host, config.server, source=str(path))
    return serve_file, config


def place_of(path: Path, serve_file: ServeFile) -> str:
    """Where in the file our configuration stands, as mistakes in it are told."""
    paths = [app.import_path for app in serve_file.applications]
    return f"{path}: applications.{paths.index(IMPORT_PATH)}.args"
