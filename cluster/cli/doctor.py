"""`squadron k8s doctor`: asks kubectl, names the cause."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cluster.errors import ConfigError
from cluster.kubernetes.doctor import Seen, diagnose
from cluster.kubernetes.finding import Document

TIMEOUT_S = 30


def doctor(
    name: Annotated[str, typer.Argument(help="The RayService.")] = "squadron",
    namespace: Annotated[str, typer.Option("--namespace", "-n")] = "squadron",
    dump: Annotated[
        Path | None,
        typer.Option(help="A file instead of a cluster: kubectl get rayservice,pod,event -o json."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say why a RayService is not Ready, and what to do; exit 1 when it is not.

    Example: squadron k8s doctor -n squadron
    """
    items = json.loads(dump.read_text()) if dump is not None else _asked(namespace)
    causes = diagnose(_seen(items.get("items", []), name))
    if as_json:
        print(json.dumps({"ready": not causes, "causes": [asdict(each) for each in causes]}))
    else:
        out = Console(highlight=False)
        if not causes:
            out.print(f"RayService {name} is Ready")
        for each in causes:
            out.print(each.object, style="bold")
            out.print(f"  {each.message}\n  -> {each.advice}")
    if causes:
        raise typer.Exit(1)


def _seen(items: list[Document], name: str) -> Seen:
    services = [
        each
        for each in items
        if each.get("kind") == "RayService" and each.get("metadata", {}).get("name") == name
    ]
    if not services:
        there = [each["metadata"]["name"] for each in items if each.get("kind") == "RayService"]
        raise ConfigError(f"no RayService {name!r}; there are: {there}", key="name", value=name)
    return Seen(
        service=services[0],
        pods=[each for each in items if each.get("kind") == "Pod"],
        events=[each for each in items if each.get("kind") == "Event"],
    )


def _asked(namespace: str) -> dict[str, Any]:
    program = shutil.which("kubectl")
    if program is None:
        raise ConfigError("kubectl is not on the PATH", key="PATH")
    command = [program, "get", "rayservice,pod,event", "-n", namespace, "-o", "json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"kubectl said nothing for {TIMEOUT_S} s", key="PATH") from None
    if done.returncode:
        raise ConfigError(f"kubectl: {done.stderr.strip()}", key="namespace", value=namespace)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
