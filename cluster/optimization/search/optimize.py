"""The search: candidates built on this machine, judged, measured in one interleaved run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config.store import ModelStore, default_root
from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.errors import ConfigError
from cluster.models import MAX_THREADS
from cluster.optimization.cache.fingerprint import hardware, library_versions
from cluster.optimization.gate.gate import GateLimits, check_labels
from cluster.optimization.intake.data import (
    Dataset,
    fitted,
    load_dataset,
    random_dataset,
)
from cluster.optimization.intake.model import GivenModel, open_model
from cluster.optimization.measure.as_before import torch_as_before
from cluster.optimization.measure.benchmark import batch_of
from cluster.optimization.measure.memory import peak_bytes, peak_bytes_of_module
from cluster.optimization.measure.timing import interleave, speedup
from cluster.optimization.measure.variant import Run, answers, opened, ranks_classes
from cluster.optimization.progress import Progress, Silent
from cluster.optimization.search.baseline import baseline_of, eager, run_of
from cluster.optimization.search.build import Bench, build, examine, lasting
from cluster.optimization.search.choose import Constraints, choose, mark_front
from cluster.optimization.search.gpu_recipes import gpu_recipes_of
from cluster.optimization.search.recipe import (
    Level,
    Material,
    Recipe,
    Target,
    Tuning,
    level_named,
    operators_of,
)
from cluster.optimization.search.recipes import recipes_named, recipes_of
from cluster.optimization.search.report import Candidate, OptimizeReport
from cluster.optimization.training.lessons import Lessons
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wish:
    """What the caller wants of a search; every field has a default.

    `recipes`: only these, by name, instead of the level's. `candidates`: other architectures for
    the same task, put on the same front (needs `data`). `shapes`: of random inputs.
    """

    level: Level = "balanced"
    constraints: Constraints = field(default_factory=Constraints)
    limits: GateLimits = field(default_factory=GateLimits)
    data: Path | Dataset | None = None
    max_items: int = 500
    recipes: tuple[str, ...] = ()
    candidates: tuple[str | Path, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    example: Mapping[str, Array] | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    threads: int = 1
    batch_size: int = 1
    num_rounds: int = 10
    measure_memory: bool = True
    tuning: Tuning = field(default_factory=Tuning)
    device: Target = "cpu"

    def __post_init__(self) -> None:
        level_named(self.level)
        for name in ("threads", "batch_size", "num_rounds", "max_items"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"{name} is {value!r}; allowed: 1 and more", key=name, value=str(value)
                )
        if self.threads > MAX_THREADS:
            raise ConfigError(
                f"threads is {self.threads}; allowed: 1 to {MAX_THREADS}",
                key="threads",
                value=str(self.threads),
            )
        if self.candidates and self.data is None:
            raise ConfigError(
                "candidates of other architectures are compared on data: random inputs tell "
                "nothing of which is better",
                key="data",
            )


def optimize(
    model: str | Path | nn.Module,
    wish: Wish | None = None,
    *,
    store: ModelStore | None = None,
    cache: ArtefactCache | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> OptimizeReport:
    """Search, measure, choose. The chosen variant lies in the cache (see `keep` to take it out).

    May be run again after it was stopped: what was built is taken from the cache.
    Raises: ConfigError for a model, data or option that cannot be used, and for a full disk.
    """
    wish = wish or Wish()
    progress = progress or Silent()
    store = store or ModelStore(default_root())
    machine = hardware()
    bench = Bench(
        cache=cache or ArtefactCache(),
        libraries=library_versions(),
        hardware=machine.as_dict(),
        threads=wish.threads,
    )
    module = None if isinstance(model, str | Path) else model
    with (
        tempfile.TemporaryDirectory(prefix="squadron-optimize-") as temporary,
        torch_as_before(module),
        bench.cache.holding(),
    ):
        workspace = Path(temporary)
        with progress.step("open the model"):
            given = open_model(
                model, store=store, workspace=workspace, inputs=wish.inputs,
                outputs=wish.outputs, example=wish.example, name=name,
            )  # fmt: skip
            asked, given = given, lasting(_as_graph(given, workspace), workspace, bench)
            data = _data(wish, given)
            others = _opened_others(wish, given, store, workspace)
        _, evaluation = data.split()
        baseline, reference = baseline_of(asked, given)
        with run_of(given, reference, wish.threads) as run:
            expected = answers(run, evaluation.items, given.card)
        check_labels(evaluation.labels, expected, ranks_classes=ranks_classes(given.card))
        found, recipes = [baseline], _recipes(wish)
        every = (
            _Tried(
                given=given, data=data, has_graph=asked.onnx is not None and asked.module is None
            ),
            *others,
        )
        for each in every:
            found += each.by(recipes, wish, expected, bench, progress)
        # Each architecture takes its own inputs.
        items = {each.given.name: each.data.split()[1].items for each in every}
        _measure_all(found, given, items, wish, progress)
        mark_front(found)
        choice = choose(found, wish.constraints, baseline.name)
    return OptimizeReport(
        model=given.name,
        sha256=given.sha256,
        level=wish.level,
        baseline=baseline.name,
        data=data.origin,
        is_real_data=data.is_real,
        hardware=machine.as_dict(),
        libraries=bench.libraries,
        threads=wish.threads,
        batch_size=wish.batch_size if given.card.batched else 1,
        speedup_of="cpu_ms" if _is_by_cpu(wish) else "wall_ms",
        candidates=tuple(found),
        chosen=choice.chosen,
        reason=choice.reason,
        constraints_met=choice.constraints_met,
        ignored=_ignored(wish, given),
    )


def _ignored(wish: Wish, given: GivenModel) -> dict[str, str]:
    if wish.batch_size == 1 or given.card.batched:
        return {}
    return {"batch_size": f"{given.name} has no batch dimension: it was timed as it is"}


def _recipes(wish: Wish) -> tuple[Recipe, ...]:
    if wish.recipes:
        return recipes_named(wish.recipes)
    return recipes_of(wish.level) if wish.device == "cpu" else gpu_recipes_of(wish.level)


def _as_graph(given: GivenModel, workspace: Path) -> GivenModel:
    """With an ONNX graph, which every recipe starts from."""
    if given.onnx is not None:
        return given
    from cluster.optimization.export.program import to_graph

    return to_graph(given, workspace)


def _data(wish: Wish, given: GivenModel) -> Dataset:
    if isinstance(wish.data, Dataset):
        return fitted(wish.data, given.card)
    if wish.data is not None:
        return load_dataset(Path(wish.data), given.card, given.folder, wish.max_items)
    return random_dataset(given.card, given.onnx, shapes=wish.shapes)


def lessons_of(data: Dataset, given: GivenModel) -> Lessons | None:
    """What may be trained on: the items that calibrate, all of them. None of random inputs."""
    if not data.is_real or not given.card.batched:
        return None
    taught = data.taught()
    if not taught.items:
        return None
    return Lessons(
        items=taught.items, labels=taught.labels, ranks_classes=ranks_classes(given.card)
    )


def _material(
    given: GivenModel,
    calibration: Dataset,
    instructions: tuple[str, ...],
    wish: Wish,
    lessons: Lessons | None,
) -> Material:
    assert given.onnx is not None, "`_as_graph` made one"
    return Material(
        card=given.card,
        onnx=given.onnx,
        calibration=calibration.items,
        operators=operators_of(given.onnx),
        instructions=instructions,
        module=given.module,
        example=given.example,
        lessons=lessons,
        tuning=wish.tuning,
        limits=wish.limits,
        is_real_data=calibration.is_real,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tried:
    """A model with the data as it takes them. `is_other`: an alternative architecture, which has a
    name of its own in this search. `has_graph`: it was given as one, which is the baseline."""

    given: GivenModel
    data: Dataset
    is_other: bool = False
    has_graph: bool = False

    def by(
        self,
        recipes: Sequence[Recipe],
        wish: Wish,
        expected: Sequence[Mapping[str, Array]],
        bench: Bench,
        progress: Progress,
    ) -> list[Candidate]:
        """It by each recipe, judged on the items that do not calibrate."""
        found: list[Candidate] = []
        given = self.given
        calibration, evaluation = self.data.split()
        lessons = lessons_of(self.data, given)
        material = _material(given, calibration, hardware().instructions, wish, lessons)
        for recipe in recipes:
            if recipe.name == "onnxruntime-fp32" and self.has_graph:
                continue  # That is the original, the baseline.
            name = f"{given.name}/{recipe.name}" if self.is_other else recipe.name
            with progress.step(f"{name}: build and judge"):
                candidate = build(recipe, material, given.sha256, bench)
                candidate.name = name
                examine(
                    candidate, expected, evaluation, wish.limits,
                    threads=wish.threads, card=given.card,
                )  # fmt: skip
            found.append(candidate)
        return found


def _opened_others(
    wish: Wish, given: GivenModel, store: ModelStore, workspace: Path
) -> list[_Tried]:
    """Opened before anything is built, so that a wrong one costs no search."""
    names, found = {given.name}, []
    for number, path in enumerate(wish.candidates):
        folder = workspace / f"candidate-{number}"
        folder.mkdir()
        other = _as_graph(open_model(path, store=store, workspace=folder), folder)
        name, again = other.name, 2
        while name in names:
            name, again = f"{other.name}-{again}", again + 1
        names.add(name)
        card = other.card.model_copy(update={"name": name})
        named = replace(other, name=name, card=card)
        try:
            found.append(_Tried(given=named, data=_data(wish, named), is_other=True))
        except ConfigError as error:
            raise ConfigError(
                f"candidate {path}: {error.message}", key="candidates", value=str(path)
            ) from None
    return found


def _measure_all(
    found: Sequence[Candidate],
    given: GivenModel,
    items: Mapping[str, tuple[dict[str, Array], ...]],
    wish: Wish,
    progress: Progress,
) -> None:
    measured = [each for each in found if each.status == "measured"]
    with progress.step(f"measure {len(measured)} variants in turns"):
        _measure(measured, given, items, wish)
    if wish.measure_memory:
        with progress.step("memory of each in a process of its own"):
            _measure_memory(measured, given, items, wish)


def _measure(
    measured: Sequence[Candidate],
    given: GivenModel,
    items: Mapping[str, tuple[dict[str, Array], ...]],
    wish: Wish,
) -> None:
    """All in one interleaved run; sets timing and speed-up over the first, the baseline. `items`:
    of each model, by its name."""
    calls: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        for each in measured:
            card = given.card if each.variant is None else each.variant.card
            batch = batch_of(items[each.model], wish.batch_size, batched=card.batched)
            run = (
                eager(given, wish.threads, wish.device)
                if each.variant is None
                else stack.enter_context(opened(each.variant, threads=wish.threads))
            )
            calls[each.name] = _call(run, batch)
        timings = interleave(calls, num_rounds=wish.num_rounds)
    first = timings[measured[0].name]
    for each in measured:
        each.timing = timings[each.name]
        each.is_by_wall = not _is_by_cpu(wish)
        each.speedup = speedup(each.timing, first, by_cpu=_is_by_cpu(wish))


def _measure_memory(
    measured: Sequence[Candidate],
    given: GivenModel,
    items: Mapping[str, tuple[dict[str, Array], ...]],
    wish: Wish,
) -> None:
    for each in measured:
        if each.variant is not None:
            each.peak_bytes = peak_bytes(each.variant, items[each.model][0], threads=wish.threads)
        elif given.module is not None and given.example is not None:
            each.peak_bytes = peak_bytes_of_module(
                given.module, given.card, given.example, threads=wish.threads
            )


def _is_by_cpu(wish: Wish) -> bool:
    return wish.threads == 1 and wish.device == "cpu"


def _call(run: Run, batch: dict[str, Array]) -> Callable[[], object]:
    return lambda: run(batch)
