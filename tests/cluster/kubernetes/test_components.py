"""Every component on every overlay: what it builds is as clean as without it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.cli.kubernetes import build, read_crds
from cluster.errors import ConfigError
from cluster.kubernetes.checks import check_documents
from cluster.kubernetes.core_schemas import check_core, is_available
from cluster.kubernetes.finding import groups_of, services_in
from cluster.kubernetes.operator.feature_gates import parse_gates
from cluster.kubernetes.pods.templates import pods_of
from tests.actors.access.test_matrix import MAY
from tests.cluster.kubernetes.manifests import COMPONENTS, KUSTOMIZATIONS, ROOT, built

CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "crds"))
EXCLUDED = {
    # The overlays have them already.
    *((overlay, each) for overlay in ("gke", "eks") for each in ("gcs-ft-redis", "monitoring")),
    *((overlay, "model-cache-pvc") for overlay in ("gke", "eks")),
    *((overlay, "gcs-ft-rocksdb") for overlay in ("gke", "eks")),
}
GATES = {"gcs-ft-rocksdb": "GCSFaultToleranceEmbeddedStorage=true"}
"""What a component says that the operator must have."""
PAIRS = [
    (overlay, component)
    for overlay in KUSTOMIZATIONS
    for component in COMPONENTS
    if (overlay.name, component.name) not in EXCLUDED
]


@pytest.mark.parametrize(
    ("overlay", "component"), PAIRS, ids=[f"{each.name}+{other.name}" for each, other in PAIRS]
)
def test_a_component_builds_cleanly_on_an_overlay(
    overlay: Path, component: Path, tmp_path: Path
) -> None:
    built(overlay)  # skips where nothing can build
    both = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(overlay, tmp_path.resolve())],
        "components": [os.path.relpath(component, tmp_path.resolve())],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(both))

    documents = build(tmp_path)

    crds = read_crds(CRDS) if CRDS.is_dir() else []
    gates = parse_gates(GATES.get(component.name, ""))
    assert check_documents(documents, crds, gates=gates) == []
    if is_available():
        assert check_core(documents, ["1.31"])[0] == []
    before, after = services_in(built(overlay)), services_in(documents)
    names = {(each["kind"], each["metadata"]["name"]) for each in documents}
    assert before != after or len(names) > len(built(overlay)), "the component changes nothing"


def test_every_pod_finds_the_models_in_a_claim_that_is_there_or_asked_for() -> None:
    """Head too: Serve builds the application there, from the models' cards."""
    for overlay in KUSTOMIZATIONS:
        documents = built(overlay)
        made = {
            each["metadata"]["name"]
            for each in documents
            if each["kind"] == "PersistentVolumeClaim"
        }
        brings_its_own = overlay.name in ("dev-cpu", "gke", "eks")
        for pod in pods_of(services_in(documents)):
            (models,) = (each for each in pod.spec["volumes"] if each["name"] == "models")
            claim = models["persistentVolumeClaim"]["claimName"]
            assert claim in (made if brings_its_own else {"squadron-models"}), (overlay, pod.path)


@pytest.mark.parametrize("overlay", KUSTOMIZATIONS, ids=lambda each: each.name)
def test_only_the_head_whose_autoscaler_asks_kubernetes_has_a_token_for_it(overlay: Path) -> None:
    (manifest,) = services_in(built(overlay))

    for group in groups_of(manifest):
        assert group.pod.get("automountServiceAccountToken", True) is group.is_head, group.name


def test_a_gateway_of_ones_own_and_an_incremental_upgrade_exclude_each_other(
    tmp_path: Path,
) -> None:
    parts = ("tls-gateway", "incremental-upgrade")
    both = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(ROOT / "k8s/base", tmp_path.resolve())],
        "components": [
            os.path.relpath(ROOT / "k8s/components" / each, tmp_path.resolve()) for each in parts
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(both))
    try:
        documents = build(tmp_path)
    except ConfigError as error:
        if error.details.get("key") != "PATH":
            raise
        pytest.skip(error.message)

    rules = {each.rule for each in check_documents(documents, [])}

    assert rules == {"route-incremental"}


def test_the_gateway_lets_through_what_clients_and_the_console_ask() -> None:
    text = (ROOT / "k8s/components/tls-gateway/gateway.yaml").read_text()
    (route,) = (each for each in yaml.safe_load_all(text) if each["kind"] == "HTTPRoute")
    paths = [match["path"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    assert all(rule["backendRefs"] for rule in route["spec"]["rules"])

    def is_let_through(asked: str) -> bool:
        return any(
            asked == each["value"]
            or (each["type"] == "PathPrefix" and asked.startswith(f"{each['value']}/"))
            for each in paths
        )

    # Metrics have a port of their own, probes come from inside, `/load` is of one door of several,
    # and `/` says only the name.
    inside = {"/metrics", "/-/healthz", "/-/routes", "/ping", "/load", "/"}
    assert {path for _, path in MAY if not is_let_through(path)} == inside


def test_redis_is_the_process_that_kubernetes_stops(tmp_path: Path) -> None:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not here: Debian's package `redis-server` has it")
    text = (ROOT / "k8s/components/gcs-ft-redis/redis.yaml").read_text()
    (stateful,) = (each for each in yaml.safe_load_all(text) if each["kind"] == "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    said = container["args"][0].replace("/run/redis", str(tmp_path)).replace("/data", str(tmp_path))
    # Another one may have the usual port; on a socket there is none.
    said += f" --port 0 --unixsocket {tmp_path}/s"
    redis = subprocess.Popen(
        [*container["command"], said],
        env={**os.environ, "REDIS_PASSWORD": "a-secret"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert redis.stdout is not None
        for line in redis.stdout:
            if "eady to accept connections" in line:
                break
        redis.terminate()
        rest, _ = redis.communicate(timeout=60)
    finally:
        redis.kill()
        redis.wait()

    assert "Received SIGTERM" in rest or "User requested shutdown" in rest
    assert redis.returncode == 0
    assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
    assert "requirepass a-secret" in (tmp_path / "redis.conf").read_text()
    assert (tmp_path / "appendonlydir").is_dir()


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda each: each.name)
def test_a_component_says_what_it_is_and_what_it_costs(component: Path) -> None:
    said = (component / "kustomization.yaml").read_text()

    assert said.startswith("# What: ")
    assert "# Why: " in said
    assert "Cost: " in said
