"""The sidecar reads what Ray's and our processes write, each line once."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from cluster.kubernetes.finding import Document, groups_of, services_in
from tests.cluster.kubernetes.manifests import KUSTOMIZATIONS, ROOT, built, overlaid, tailed

SESSION = "/tmp/ray/session_2026-11-21_19-49-18_292390_11764/logs"
WORKER = "worker-2ce16a6861338322432dc7f77b722595fc91a42e877280fc7806d069"
WRITTEN = {
    # As Ray 2.60 has named the files of a session of ours.
    f"{WORKER}-01000000-12243.err": "process",
    f"{WORKER}-01000000-12243.out": "process",
    f"{WORKER}-ffffffff-12243.err": "process",
    "serve/replica_squadron_gateway_s2t14uo2.log": "serve",
    "serve/controller_12243.log": "serve",
    "serve/proxy_192.0.2.2.log": "serve",
    "raylet.out": "ray",
    "raylet.err": "ray",
    "gcs_server.out": "ray",
    "monitor.log": "ray",
    # Rotated, so delivered before.
    f"{WORKER}-01000000-12243.err.1": None,
    "raylet.out.1": None,
    "gcs_server.out.2": None,
    "monitor.log.1": None,
    "serve/controller_12243.log.1": None,
    "events/event_GCS.log": None,
    "python-core-worker-2ce16a6861338322432dc7f77b722595fc91a42e877280fc7806d069_12243.log": None,
    "debug_state.txt": None,
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Document:
    built(ROOT / "k8s/base")  # skips where nothing can build
    folder = tmp_path_factory.mktemp("logging")
    (found,) = services_in(overlaid(folder, ROOT / "k8s/base", ROOT / "k8s/components/logging"))
    return found


@pytest.mark.parametrize("name", WRITTEN)
def test_each_file_is_read_under_one_tag_or_not_at_all(name: str) -> None:
    wanted = WRITTEN[name]

    tags = [
        tag
        for tag in ("process", "serve", "ray")
        for pattern in tailed(tag)
        if _matches(f"{SESSION}/{name}", pattern)
    ]

    assert tags == ([wanted] if wanted else [])


def test_the_newest_session_is_not_read_under_its_second_name() -> None:
    latest = f"/tmp/ray/session_latest/logs/{WORKER}-01000000-12243.err"

    assert not any(_matches(latest, pattern) for pattern in tailed("process"))


def _matches(path: str, pattern: str) -> bool:
    """As glob does: a `*` stays within its folder."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch, parts, wanted))


def test_head_and_workers_share_the_folder_of_logs_with_the_sidecar(service: Document) -> None:
    for group in groups_of(service):
        ray, sidecar = group.pod["containers"]
        mounted = {each["mountPath"]: each["name"] for each in ray["volumeMounts"]}
        read = {each["mountPath"]: each for each in sidecar["volumeMounts"]}
        assert mounted["/tmp/ray"] == read["/tmp/ray"]["name"] == "ray-logs", group.name
        assert read["/tmp/ray"]["readOnly"]


@pytest.mark.parametrize("overlay", KUSTOMIZATIONS, ids=lambda each: each.name)
def test_files_of_logs_stay_within_their_volume(overlay: Path) -> None:
    """Twenty processes that write all the time beside Ray's own; Ray and Serve read the same two
    variables. Above the volume's limit the pod would be evicted."""
    (manifest,) = services_in(built(overlay))

    for group in groups_of(manifest):
        files = 1 + int(group.env()["RAY_ROTATION_BACKUP_COUNT"])
        assert 20 * files * int(group.env()["RAY_ROTATION_MAX_BYTES"]) < 2 * 2**30


def test_every_path_of_the_sidecar_is_mounted(service: Document) -> None:
    (config,) = (
        each
        for each in yaml.safe_load_all(
            (ROOT / "k8s/components/logging/fluent-bit.yaml").read_text()
        )
    )
    (group, *_) = groups_of(service)
    mounts = [each["mountPath"] for each in group.pod["containers"][1]["volumeMounts"]]

    named = re.findall(r"(?:path|db|parsers_file): (/\S+)", config["data"]["fluent-bit.yaml"])

    assert len(named) == 7
    for paths in named:
        for path in paths.split(","):
            assert any(path.startswith(f"{mount}/") for mount in mounts), path
    assert Path("/fluent-bit/squadron/parsers.conf").name in config["data"]


def test_no_variable_is_set_that_serve_does_not_read(service: Document) -> None:
    for group in groups_of(service):
        assert "RAY_SERVE_LOG_ENCODING" not in group.env()
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert config["logging_config"]["encoding"] == "JSON"
