"""Small changes of the repository's RayService, to be put together to mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from cluster.kubernetes.finding import Document

Change = Callable[[Document], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`bad` is found by the rule of that name and no other but `also`; `good`, as near to it as can
    be, by none. `gates`: of the operator. `beside`: documents in the same kustomization."""

    bad: Change
    good: Change = field(default=lambda manifest: None)
    also: frozenset[str] = frozenset()
    gates: str = ""
    beside: tuple[Document, ...] = ()


def cluster(manifest: Document) -> Document:
    return manifest["spec"]["rayClusterConfig"]  # type: ignore[no-any-return]


def alone(manifest: Document, name: str) -> None:
    """The RayCluster of the service, without it."""
    manifest.update(kind="RayCluster", metadata={"name": name}, spec=cluster(manifest))


def head(manifest: Document) -> Document:
    return cluster(manifest)["headGroupSpec"]  # type: ignore[no-any-return]


def head_pod(manifest: Document) -> Document:
    return head(manifest)["template"]["spec"]  # type: ignore[no-any-return]


def head_ray(manifest: Document) -> Document:
    return head_pod(manifest)["containers"][0]  # type: ignore[no-any-return]


def worker(manifest: Document) -> Document:
    return cluster(manifest)["workerGroupSpecs"][0]  # type: ignore[no-any-return]


def pod(manifest: Document) -> Document:
    return worker(manifest)["template"]["spec"]  # type: ignore[no-any-return]


def ray(manifest: Document) -> Document:
    return pod(manifest)["containers"][0]  # type: ignore[no-any-return]


def annotate(manifest: Document, name: str, value: str) -> None:
    manifest["metadata"].setdefault("annotations", {})[name] = value


def set_env(container: Document, name: str, value: str) -> None:
    env = [each for each in container["env"] if each["name"] != name]
    container["env"] = [*env, {"name": name, "value": value}]


def limits(manifest: Document, **resources: str) -> None:
    """Requests and limits of the worker alike."""
    for kind in ("requests", "limits"):
        ray(manifest)["resources"][kind].update(resources)


def gpus(manifest: Document, number: int | str) -> None:
    ray(manifest)["resources"]["limits"]["nvidia.com/gpu"] = number


def configure(manifest: Document, change: Callable[[Any], object]) -> None:
    """`change` gets the whole Serve config."""
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    change(config)
    manifest["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False)


def arguments(manifest: Document, change: Callable[[Any], object]) -> None:
    configure(manifest, lambda config: change(config["applications"][0]["args"]))


def only(manifest: Document, **variant: Any) -> None:
    """One variant and nothing built of others."""

    def change(args: Any) -> None:
        args["variants"] = {"m": {"source": "all-minilm-l6-v2", **variant}}
        args.pop("experiments", None)
        args.pop("ensembles", None)

    arguments(manifest, change)


def autoscaled(manifest: Document, **options: Any) -> None:
    cluster(manifest).update(
        enableInTreeAutoscaling=True, autoscalerOptions={"version": "v2", **options}
    )


def incremental(manifest: Document, **options: Any) -> None:
    usual = {"stepSizePercent": 10, "intervalSeconds": 30, "gatewayClassName": "any"}
    manifest["spec"]["upgradeStrategy"] = {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            key: value for key, value in {**usual, **options}.items() if value is not None
        },
    }


def scaled_incremental(manifest: Document, **options: Any) -> None:
    autoscaled(manifest)
    incremental(manifest, **options)


def state(manifest: Document, **options: Any) -> None:
    cluster(manifest)["gcsFaultToleranceOptions"] = options
