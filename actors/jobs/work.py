"""The process that does one job. It knows no Ray: what it is to do lies in a folder; what it does
it tells a line of JSON at a time; and it ends with whoever holds its standard input.

python -m actors.jobs.work FOLDER
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from cluster.config.model_card import ModelCard
from cluster.config.store import ModelStore
from cluster.control.jobs.request import OptimizeRequest, ProfileRequest, job_request
from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.engines.options import Option
from cluster.engines.table import engine_name
from cluster.errors import ConfigError, InvalidRequest, SquadronError
from cluster.models import EngineName
from cluster.optimization.progress import SilentTransfer, Transfer
from cluster.protocols.v2_json import decode_infer
from cluster.tensors import Array

if TYPE_CHECKING:
    from cluster.optimization.search.report import OptimizeReport

WORK_FILE = "work.json"
INPUTS_FILE = "inputs"
RESULT_FILE = "result.json"
MAX_TRACE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`folder`: of the artefact; `store`: the server's, as a folder; `kept`: where what a search
    chose is put. `json_length`: of the body of the request, which is in `inputs` as it came; None
    with no binary part. `candidates`: their folders in the store."""

    request: Mapping[str, Any]
    card: str
    folder: str
    engine: EngineName
    options: Mapping[str, Option]
    threads: int
    is_processed: bool
    store: str
    kept: str
    nice: int
    json_length: int | None = None
    candidates: tuple[str, ...] = ()

    def hidden(self, text: str, scratch: Path) -> str:
        """Where the server keeps its files is nobody's business."""
        for place in (self.folder, self.store, str(scratch)):
            text = text.replace(f"{place}/", "").replace(place, "the store")
        return text


class Telling:
    """The progress of the toolchain as lines of JSON."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def tell(self, **what: object) -> None:
        self._stream.write(orjson.dumps(what).decode() + "\n")
        self._stream.flush()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        self.tell(step=what)
        yield

    def download(self, file: str, total_bytes: int | None) -> Transfer:
        self.tell(step=f"fetch {file}")
        return SilentTransfer()


def read_inputs(scratch: Path, json_length: int | None) -> dict[str, Array]:
    """The tensors of the request's body. Raises: InvalidRequest."""
    body = (scratch / INPUTS_FILE).read_bytes()
    content = body if json_length is None else body[:json_length]
    if "inputs" not in orjson.loads(content):
        return {}
    request = decode_infer(body, json_length=json_length, model="the job", version="")
    return {each.name: each.array for each in request.inputs}


def run(work: Work, inputs: dict[str, Array], telling: Telling) -> dict[str, object]:
    """Raises: SquadronError of the class that says who must act."""
    request = job_request(dict(work.request))
    if isinstance(request, ProfileRequest):
        return _profiled(work, request, inputs, telling)
    return _optimized(work, request, inputs, telling)


def _profiled(
    work: Work, request: ProfileRequest, inputs: dict[str, Array], telling: Telling
) -> dict[str, object]:
    from cluster.client.embedded import EngineBackend
    from cluster.client.measure.profiled import profile_backend
    from cluster.optimization.measure.variant import Variant

    variant = Variant(
        card=ModelCard.model_validate_json(work.card),
        folder=Path(work.folder),
        engine=work.engine,
        options=dict(work.options),
    )
    with telling.step("open the model"):
        backend = EngineBackend(variant, device="cpu", threads=work.threads)
    try:
        with telling.step(f"profile {request.num_calls} calls"):
            report = profile_backend(
                backend, inputs or None, request.num_calls, is_raw=not work.is_processed
            )
    finally:
        backend.close()
    trace = report.trace if len(report.trace) <= MAX_TRACE_BYTES else ""
    return {"report": report.as_dict(), "trace": trace}


def _optimized(
    work: Work, request: OptimizeRequest, inputs: dict[str, Array], telling: Telling
) -> dict[str, object]:
    from cluster.client.search.optimize import run_search
    from cluster.client.workplace import Workplace
    from cluster.optimization.gate.gate import GateLimits
    from cluster.optimization.search.keep import check_free

    is_kept = True
    try:
        check_free(Path(work.kept))
    except ConfigError:
        # A store that cannot be written to: the report is what was asked for.
        if request.add_to_store:
            raise InvalidRequest("add_to_store: the server's store cannot be written to") from None
        is_kept = False
    store = ModelStore(Path(work.store))
    place = Workplace(store=store, cache=ArtefactCache(), device="cpu", threads=request.threads)
    try:
        report, plan = run_search(
            work.folder,
            place,
            target=request.target,
            target_device=request.target_device,
            level=request.level,
            use_cache=request.use_cache,
            candidates=work.candidates,
            options=request.options,
            data=inputs or None,
            limits=GateLimits(**request.limits.model_dump(exclude_none=True)),
            progress=telling,
            num_rounds=request.num_rounds,
        )
        if is_kept and report.chosen.variant is not None:
            with telling.step("keep what was chosen"):
                _keep(report, work, request, telling)
    finally:
        place.close()
    return {"report": report.as_dict(), "applied": dict(plan.acts)}


def _keep(report: OptimizeReport, work: Work, request: OptimizeRequest, telling: Telling) -> None:
    """A full disk costs the copy, and not the report of a long search."""
    from cluster.optimization.search.keep import keep

    try:
        keep(report, Path(work.kept))
    except (ConfigError, OSError) as error:
        if request.add_to_store:
            raise InvalidRequest(f"add_to_store: {error}") from None
        telling.tell(step=work.hidden(f"not kept: {error}", Path(work.kept)))


def _end_with_the_holder(scratch: Path) -> None:
    """Nobody writes to standard input: it ends when its holder does, however that happens; then
    this process goes, and with it what it started and the tensors that it was given."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        shutil.rmtree(scratch, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _go_after_what_is_served(nice: int) -> None:
    """For the cores, and where the machine runs out of memory: then this process goes first."""
    os.nice(nice)
    with suppress(OSError):  # not everywhere is Linux
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def main(scratch: Path) -> None:
    # What libraries print must not come between the lines that are told.
    telling = Telling(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    _end_with_the_holder(scratch)
    content = orjson.loads((scratch / WORK_FILE).read_bytes())
    content["engine"] = engine_name(content["engine"])
    work = Work(**content)
    _go_after_what_is_served(work.nice)
    try:
        result = orjson.dumps(run(work, read_inputs(scratch, work.json_length), telling))
    except SquadronError as error:
        message = work.hidden(error.message, scratch)
        telling.tell(error=[type(error).__name__, message])
        return
    (scratch / RESULT_FILE).write_bytes(work.hidden(result.decode(), scratch).encode())
    telling.tell(done=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
