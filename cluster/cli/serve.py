"""`squadron serve`: start Ray Serve with the environment it needs, and say when all is ready."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated

import httpx
import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster.cli.own_door import KEY_VARIABLE, OwnDoor
from cluster.config.device import parse_device
from cluster.config.model_card import ModelCard
from cluster.config.security.exposure import warnings_of
from cluster.config.security.files import check_files
from cluster.config.serve_file import IMPORT_PATH, ServeFile, read_serve_file
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore
from cluster.engines.device import may_have_gpu, refuse_device
from cluster.engines.fit import check_fit
from cluster.engines.table import default_engine
from cluster.errors import ConfigError
from cluster.optimization.remote.mirror import open_store
from cluster.units import human_seconds

SERVE_ENVIRONMENT = {
    # Ray's workers run at nice 15 otherwise and lose to anything else on the machine.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # One engine thread a replica; without it every replica starts a pool as wide as the machine.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # What autoscaled replicas record is a second old at most, not ten.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # Nothing reaches for a model hub at run time.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
STOP_PATIENCE_S = 90.0


def serve(
    target: Annotated[
        str,
        typer.Argument(
            help="A Serve config file (.yaml), or one model: .onnx, TorchScript .pt, "
            "torch.export .pt2, a Hugging Face folder, or file.py:Class."
        ),
    ] = "serve_configs/prod.yaml",
    name: Annotated[str | None, typer.Option(help="The model's name (one model only).")] = None,
    http_port: Annotated[int, typer.Option(help="HTTP port (one model only).")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port (one model only).")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Metrics port (one model only).")] = 8002,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME:DATATYPE:DIMS for formats that do not say."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", help="NAME:DATATYPE:DIMS for formats that do not say."),
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="Give up waiting for ready after this.")] = 600,
    verbose: Annotated[bool, typer.Option(help="Show Ray's own output.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout when ready.")
    ] = False,
) -> None:
    """Start Squadron and keep it running until Ctrl-C.

    Examples:

      squadron serve serve_configs/prod.yaml

      squadron serve my_model.onnx --name my-model

      squadron serve my_code.py:MyModel --input x:FP32:-1,4 --output y:FP32:-1,4
    """
    console = Console(stderr=True, highlight=False)
    # Started in the background by a shell, SIGINT comes ignored; and TERM means the same to us.
    # Handlers set here are back to their defaults in `serve run`, which then heeds them too.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="squadron-") as scratch:
        if target.endswith((".yaml", ".yml")):
            file = Path(target)
        else:
            ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
            file = _one_model_file(target, name, inputs, outputs, ports, Path(scratch))
        serve_file, config = read_serve_file(file)
        _check_models(config, file)
        check_files(config.server)
        _check_ports(serve_file, config)
        log = Path(scratch) / "serve.log"
        with log.open("w") as sink:
            child = _start(file, None if verbose else sink)
            try:
                started_s = time.monotonic()
                door = OwnDoor(serve_file, config)
                _wait_until_ready(child, door, config, console, log, started_s + timeout_s)
                took_s = time.monotonic() - started_s
                _report(door, config, took_s, console, as_json=as_json)
                door.close()
                code = child.wait()
                raise SystemExit(code)
            except KeyboardInterrupt:
                console.print("stopping: requests in flight are finished first …")
            finally:
                _stop(child)


def _one_model_file(
    target: str,
    name: str | None,
    inputs: list[str] | None,
    outputs: list[str] | None,
    ports: dict[str, int],
    scratch: Path,
) -> Path:
    """A config for a single model, its artefact in a store of its own."""
    from cluster.optimization.add import add_model

    card: ModelCard = add_model(
        target, ModelStore(scratch / "models"), name=name, inputs=inputs, outputs=outputs
    )
    args = {
        "server": {door: {"port": port} for door, port in ports.items()},
        "store": {"path": str(scratch / "models")},
        "variants": {card.name: {"source": f"{card.name}/{card.version}"}},
    }
    content = {
        "http_options": {"host": "127.0.0.1", "port": _free_port()},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {"name": "squadron", "route_prefix": "/", "import_path": IMPORT_PATH, "args": args}
        ],
    }
    file = scratch / f"{card.name}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def _check_models(config: SquadronConfig, file: Path) -> None:
    """Every required model is there and can run here, before Ray is started for nothing."""
    location = os.environ.get("SQUADRON_MODEL_STORE") or config.store.path
    store = open_store(location, config.store.cache)
    is_alone = not _joins_cluster()
    for name, variant in config.variants.items():
        if variant.optional:
            continue
        try:
            source, _, version = (variant.source or "").partition("/")
            card = variant.card or store.card(source, version)
            check_fit(card, variant.engine, variant.device)
            device = parse_device(variant.device)
            if is_alone and device.kind == "cuda" and not may_have_gpu():
                engine = variant.engine or default_engine(card.format)
                raise refuse_device(device, engine, "auto, cpu")
        except ConfigError as error:
            raise ConfigError(
                f"{file}: variants.{name}: {error.message}", **{**error.details, "file": str(file)}
            ) from None


def _joins_cluster() -> bool:
    """Whether `serve run` may find a Ray cluster that runs: its other nodes may have what this
    machine has not. Ray looks at the variable, then at the file that `ray start` leaves."""
    left = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray/ray_current_cluster"
    return bool(os.environ.get("RAY_ADDRESS")) or left.exists()


def _check_ports(serve_file: ServeFile, config: SquadronConfig) -> None:
    server = config.server
    wanted = {
        "server.http.port": (server.http.host, server.http.port),
        "server.grpc.port": (server.grpc.host, server.grpc.port),
        "server.metrics.port": (server.metrics.host, server.metrics.port),
        "http_options.port": (serve_file.http_options.host, serve_file.http_options.port),
    }
    for key, (host, port) in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ConfigError(
                    f"{key}: cannot listen on {host}:{port}: {error.strerror}. "
                    f"Stop the program that uses the port, or choose another",
                    key=key,
                    value=port,
                ) from None


def keep_token_private(folder: Path) -> None:
    """Ray's token, in its folder of the home: whoever reads it may run code as this user, and Ray
    writes it readable for everybody."""
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    with suppress(OSError):
        token = folder / "auth_token"
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)


def _start(file: Path, sink: IO[str] | None) -> subprocess.Popen[bytes]:
    """`serve run` in a process group of its own, so that Ctrl-C reaches it once, from us."""
    keep_token_private(Path.home() / ".ray")
    program = Path(sys.executable).with_name("serve")
    environment = {**SERVE_ENVIRONMENT, **os.environ}
    return subprocess.Popen(
        [str(program), "run", str(file)],
        env=environment,
        stdout=sink or sys.stderr,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait_until_ready(
    child: subprocess.Popen[bytes],
    door: OwnDoor,
    config: SquadronConfig,
    console: Console,
    log: Path,
    until_s: float,
) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} models ready"),
        TimeElapsedColumn(),
    )
    has_told = False
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting Ray", total=len(config.model_names()))
        while time.monotonic() < until_s:
            told = log.read_text(errors="replace")
            if why := refusal_in(told):
                raise ConfigError(why)
            if child.poll() is not None:
                raise ConfigError(f"`serve run` ended with code {child.returncode}:\n{_tail(log)}")
            try:
                index = door.index()
                _check_none_failed(index, config)
                num_ready = sum(model["state"] == "READY" for model in index)
                progress.update(task, completed=num_ready, description="loading models")
                if door.is_ready():
                    keep_token_private(Path.home() / ".ray")
                    return
            except (httpx.HTTPError, ValueError):
                pass  # not listening yet
            if not has_told and (waiting := without_room(told)):
                has_told = True
                console.print(
                    f"Ray has no room yet for {', '.join(waiting)}: what all replicas reserve "
                    "(`resources` of the variants, 0.1 of a core where they have none) may be more "
                    "than this machine has",
                    soft_wrap=True,
                )
            time.sleep(0.2)
    raise ConfigError(f"not ready in time; the end of the log:\n{_tail(log)}")


def refusal_in(log: str) -> str:
    """Why the configuration cannot be served, in our own words; empty while nothing says so. Ray
    tries three times more what can only come out the same: that is not waited for."""
    failed = log.partition("Task build_serve_application failed")[2]
    told = re.search(r"cluster\.errors\.ConfigError: (.+)\n", failed)
    return told[1].replace("\x1b[0m", "").strip() if told else ""


def without_room(log: str) -> list[str]:
    """Deployments of which Serve says, after half a minute, that a replica finds no place."""
    told = re.findall(r"Deployment '([^']+)' in .* have taken more than \d+s to be scheduled", log)
    return sorted(set(told))


def _check_none_failed(index: list[dict[str, str]], config: SquadronConfig) -> None:
    """A required variant that Serve gave up on will not come: waiting on is no use."""
    for model in index:
        variant = config.variants.get(model["name"])
        if variant is None or variant.optional or variant.replicas == 0:
            continue
        if model["state"] == "UNAVAILABLE":
            raise ConfigError(f"{model['name']} cannot be served: {model['reason']}")


def _report(
    door: OwnDoor, config: SquadronConfig, took_s: float, console: Console, *, as_json: bool
) -> None:
    index = door.index()
    example = example_of(door, config, index)
    if as_json:
        content = {
            "ready": True,
            "seconds": round(took_s, 1),
            "http": door.http,
            "grpc": door.grpc,
            "metrics": door.metrics,
            "models": index,
            "try": example,
        }
        print(json.dumps(content), flush=True)
        return
    table = Table(title=f"ready in {human_seconds(took_s)}", title_justify="left")
    for column in ("model", "state", ""):
        table.add_column(column)
    for model in index:
        table.add_row(model["name"], model["state"], model["reason"])
    console.print(table)
    console.print(f"HTTP {door.http}   gRPC {door.grpc}   metrics {door.metrics}", soft_wrap=True)
    for warning in warnings_of(config.server):
        console.print(f"[bold]note:[/bold] {warning}", soft_wrap=True)
    console.print(f"\nTry it:\n  {example}\n", soft_wrap=True)
    console.print("Ctrl-C stops it.")


def example_of(door: OwnDoor, config: SquadronConfig, index: list[dict[str, str]]) -> str:
    """One line that works as it stands, with a model that is ready where one is."""
    photo = Path(config.store.path) / ".samples" / "scikit-image" / "chelsea.png"
    root = f"{door.http}{config.server.base_path}"
    base = f"{root}/v2/models"
    ready = [each["name"] for each in index if each["state"] == "READY"]
    model = next((name for name in config.model_names() if name in ready), config.model_names()[0])
    if door.needs_key:
        return f'curl -H "authorization: Bearer ${KEY_VARIABLE}" {base}/{model}'
    if "photo-classifier" in config.experiments and photo.exists():
        return f"curl --data-binary @{photo} {base}/photo-classifier/infer"
    if door.is_decoupled(model):
        if not door.is_listed(model):
            return f"curl {base}/{model}"
        # A chat needs a template, which a model may not have.
        body = json.dumps({"model": model, "prompt": "The capital of France is", "temperature": 0})
        return f"curl -H 'content-type: application/json' -d '{body}' {root}/v1/completions"
    return _zeros_example(door, base, model)


def _zeros_example(door: OwnDoor, base: str, model: str) -> str:
    """An `infer` call with zeros, or the model's metadata when its inputs are too large to type."""
    inputs = []
    for tensor in door.inputs(model):
        shape = [1 if size < 0 else size for size in tensor["shape"]]
        zero: str | int = "hello" if tensor["datatype"] == "BYTES" else 0
        values = [zero] * math.prod(shape)
        if len(values) > 32:
            return f"curl {base}/{model}"
        named = {"name": tensor["name"], "datatype": tensor["datatype"]}
        inputs.append(named | {"shape": shape, "data": values})
    body = json.dumps({"inputs": inputs})
    return f"curl -H 'content-type: application/json' -d '{body}' {base}/{model}/infer"


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ctrl-C to `serve run` (it shuts Serve and Ray down), then harder."""
    for sign, patience_s in ((signal.SIGINT, STOP_PATIENCE_S), (signal.SIGTERM, 10.0)):
        if child.poll() is not None:
            return
        child.send_signal(sign)
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
    child.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, num_lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-num_lines:])
