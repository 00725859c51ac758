"""A Serve config of a laptop as one of a pod: the same models, other hosts, folders and logs."""

from __future__ import annotations

import copy

import yaml

from cluster.config.security.references import WHY
from cluster.config.security.secret_names import secret_variables
from cluster.config.serve_file import IMPORT_PATH
from cluster.config.squadron import SquadronConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError
from cluster.kubernetes.finding import Document

EVERYWHERE = "0.0.0.0"
DOORS = ("http", "grpc", "metrics")


def serve_config(content: Document, *, store: str, source: str) -> str:
    """`serveConfigV2`: doors and Serve's proxy listen on the pod's interfaces, models lie in
    `store`, a proxy answers KubeRay's probes on every node, and log lines are JSON where the file
    says nothing of them (Serve 2.60 has no variable for it, only this).

    Raises: ConfigError when the file holds no Squadron application, or a wrong one.
    """
    _check_shapes(content, source)
    rendered = copy.deepcopy(content)
    rendered["proxy_location"] = "EveryNode"
    rendered["http_options"] = {**(rendered.get("http_options") or {}), "host": EVERYWHERE}
    rendered["logging_config"] = {"encoding": "JSON", **(rendered.get("logging_config") or {})}
    ours = [
        app
        for app in rendered.get("applications") or []
        if isinstance(app, dict) and app.get("import_path") == IMPORT_PATH
    ]
    if len(ours) != 1:
        raise ConfigError(
            f"{source}: applications: exactly one must have import_path {IMPORT_PATH!r}",
            key="applications",
        )
    for name in secret_variables(ours[0].get("runtime_env")):
        key = f"runtime_env.env_vars.{name}"
        raise ConfigError(
            f"{source}: {key} looks like a secret, and {WHY}, runtime_env as well; allowed: the "
            "container's env with valueFrom.secretKeyRef (component `secrets`)",
            key=key,
        )
    args = ours[0].setdefault("args", {})
    config = check_section(args, SquadronConfig, source=source)
    if config.server.tls is not None:
        raise ConfigError(
            f"{source}: server.tls: KubeRay's readiness probe and Serve's ingress speak plain HTTP "
            "in the pod; allowed: no server.tls, and TLS at the gateway",
            key="server.tls",
        )
    server = args.setdefault("server", {})
    for door, port in zip(DOORS, (8000, 8001, 8002), strict=True):
        server[door] = {"port": port, **server.get(door, {}), "host": EVERYWHERE}
    server["logging"] = {"format": "json", **(server.get("logging") or {})}
    args["store"] = {**(args.get("store") or {}), "path": store}
    return yaml.safe_dump(rendered, sort_keys=False, width=100)


def _check_shapes(content: Document, source: str) -> None:
    """Of what is looked into before Serve's own schema is asked. Raises: ConfigError."""
    for key in ("http_options", "logging_config"):
        if not isinstance(content.get(key) or {}, dict):
            raise ConfigError(
                f"{source}: {key}: expected keys and values, got {content[key]!r}", key=key
            )
    applications = content.get("applications")
    if not isinstance(applications or [], list):
        raise ConfigError(
            f"{source}: applications: expected a list, got {applications!r}", key="applications"
        )


def replaced_block(manifest: str, config: str) -> str:
    """A RayService's text with another block under `serveConfigV2: |`, the rest letter for letter.

    Raises: ConfigError where there is no such block.
    """
    lines = manifest.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if line.strip() == "serveConfigV2: |"]
    if len(starts) != 1:
        raise ConfigError(
            f"expected one line `serveConfigV2: |`, found {len(starts)}", key="serveConfigV2"
        )
    start = starts[0] + 1
    depth = len(lines[starts[0]]) - len(lines[starts[0]].lstrip())
    end = start
    while end < len(lines) and (
        not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > depth
    ):
        end += 1
    block = [" " * (depth + 2) + line if line.strip() else line for line in config.splitlines(True)]
    return "".join([*lines[:start], *block, *lines[end:]])
