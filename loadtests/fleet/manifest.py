"""What our manifests say of a pod: its environment, its preStop hook, its times."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s/base/rayservice.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """`pre_stop`: a command; empty when `pre_stop_sleep_s` says all. Times in seconds."""

    environment: dict[str, str]
    num_cpus: str
    pre_stop_sleep_s: float
    pre_stop: tuple[str, ...]
    grace_s: float
    start_params: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    head: PodSpec
    worker: PodSpec
    serve: dict[str, Any]


def read_manifest(path: Path = BASE) -> Manifest:
    """Of a RayService in a file, or of what a kustomization builds."""
    text = path.read_text() if path.is_file() else _built(path)
    documents = [each for each in yaml.safe_load_all(text) if each]
    (service,) = [each for each in documents if each["kind"] == "RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    return Manifest(
        head=_pod(cluster["headGroupSpec"]),
        worker=_pod(cluster["workerGroupSpecs"][0]),
        serve=yaml.safe_load(service["spec"]["serveConfigV2"]),
    )


def _pod(group: dict[str, Any]) -> PodSpec:
    spec = group["template"]["spec"]
    container = spec["containers"][0]
    hook = container.get("lifecycle", {}).get("preStop", {})
    params = dict(group.get("rayStartParams") or {})
    return PodSpec(
        environment={
            each["name"]: str(each["value"]) for each in container["env"] if "value" in each
        },
        num_cpus=params.pop("num-cpus", str(container["resources"]["limits"]["cpu"])),
        pre_stop_sleep_s=float(hook.get("sleep", {}).get("seconds", 0)),
        pre_stop=tuple(hook.get("exec", {}).get("command", ())),
        grace_s=float(spec["terminationGracePeriodSeconds"]),
        start_params=params,
    )


def _built(folder: Path) -> str:
    command = ["kubectl", "kustomize", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
