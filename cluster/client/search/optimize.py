"""`Client.optimize`: the toolchain's search, asked in the SDK's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.client.custom_operator import CustomOperator
from cluster.client.inputs import as_array
from cluster.client.search.asked import Plan
from cluster.client.search.options import plan
from cluster.client.workplace import Workplace
from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.errors import ConfigError
from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.intake.data import LABELS_KEY, Dataset, class_numbers
from cluster.optimization.progress import Progress
from cluster.optimization.search.choose import Constraints
from cluster.optimization.search.optimize import Wish
from cluster.optimization.search.optimize import optimize as search
from cluster.optimization.search.recipe import level_named
from cluster.optimization.search.report import OptimizeReport
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn

    from cluster.optimization.elsewhere.edge import EdgeFile

NUM_ROUNDS = 10


def run_search(
    model: str | Path | nn.Module,
    place: Workplace,
    *,
    target: str = "latency",
    target_device: str = "cpu",
    level: str = "balanced",
    use_cache: bool = True,
    custom_operators: Sequence[object] = (),
    candidates: Sequence[str | Path] = (),
    options: Mapping[str, Any] | None = None,
    data: str | Path | Dataset | Mapping[str, Any] | None = None,
    example: Mapping[str, Array] | None = None,
    limits: GateLimits | None = None,
    progress: Progress | None = None,
    num_rounds: int = NUM_ROUNDS,
    name: str = "",
) -> tuple[OptimizeReport, Plan]:
    """The report says in `ignored` which options did nothing and why.

    Raises: ConfigError for what cannot be used, as `cluster.optimization.search.optimize`.
    """
    wanted = plan(
        target=target,
        target_device=target_device,
        level=level_named(level),
        options=options or {},
        threads=place.threads,
    )
    _custom(custom_operators, wanted)
    shapes: dict[str, tuple[int, ...]] = {}
    if wanted.sequence_length is not None and data is not None:
        wanted.ignore("sequence_length", "the data have their own; it is of random inputs")
    elif wanted.sequence_length is not None:
        shapes = _token_shapes(model, place, wanted.sequence_length, wanted)
    wish = Wish(
        level=level_named(level),
        constraints=Constraints(
            max_latency_ms=wanted.max_latency_ms,
            max_p99_ms=wanted.max_p99_ms,
            max_size_bytes=wanted.max_size_bytes,
        ),
        limits=limits or GateLimits(),
        data=_data(data),
        recipes=tuple(recipe.name for recipe in wanted.recipes),
        candidates=tuple(candidates),
        example=example,
        shapes=shapes,
        threads=wanted.threads,
        batch_size=wanted.batch_size,
        num_rounds=num_rounds,
        measure_memory=wanted.measures_memory and wanted.device == "cpu",
        tuning=wanted.tuning,
        device=wanted.device,
    )
    cache = place.cache if use_cache else ArtefactCache(place.new_folder())
    with _mkldnn(wanted.uses_mkldnn):
        report = search(model, wish, store=place.store, cache=cache, progress=progress, name=name)
    if target == "size":
        report = _smallest(report, wish.constraints)
    _unheard(wanted, report, options or {})
    return replace(report, ignored={**wanted.ignored, **report.ignored}), wanted


TUNES = {"prune_ratio": "prune_ratio", "rank_energy": "rank_energy", "training_steps": "schedule"}
"""Option -> the field of `Tuning` that a recipe must read for it to act."""


def _unheard(wanted: Plan, report: OptimizeReport, options: Mapping[str, Any]) -> None:
    """Options that the search of this model had no use for."""
    built = [each.name.rpartition("/")[2] for each in report.candidates if each.variant is not None]
    recipes = [recipe for recipe in wanted.recipes if recipe.name in built]
    for key, field in TUNES.items():
        if options.get(key) is not None and not any(field in each.tuned_by for each in recipes):
            wanted.ignore(
                key,
                "no variant that it is for was built: they are of level max and of a torch module"
                + (", taught on data" if key == "training_steps" else ""),
            )
    is_torch = any(
        each.engine == "torch" and (each.is_reference or each.variant is not None)
        for each in report.candidates
    )
    if options.get("use_mkldnn") is not None and "use_mkldnn" in wanted.acts and not is_torch:
        wanted.ignore("use_mkldnn", "nothing here is run by torch: the model is a graph")
    if "batch_size" in report.ignored:
        wanted.acts.pop("batch_size", None)


def _data(data: str | Path | Dataset | Mapping[str, Any] | None) -> Path | Dataset | None:
    """Arrays by input name, first axis the items, `labels` among them if known, as items.

    Raises: ConfigError for arrays of different lengths.
    """
    if isinstance(data, str):
        return Path(data)
    if not isinstance(data, Mapping):
        return data
    arrays = {str(name): as_array(value, None) for name, value in data.items()}
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values()), 0):
        said = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "none"
        raise ConfigError(f"data: arrays of one length are needed, got {said}", key="data")
    labels = arrays.pop(LABELS_KEY, None)
    count = next(iter(lengths.values()))
    return Dataset(
        origin=f"{count} rows given",
        is_real=True,
        items=tuple({n: a[i : i + 1] for n, a in arrays.items()} for i in range(count)),
        labels=None if labels is None else class_numbers(labels, "data"),
    )


def write_ort(report: OptimizeReport, place: Workplace, plan: Plan) -> Path | None:
    """The chosen variant in ONNX Runtime's format for phones; None when it is torch's own.

    Raises: ConfigError when it is larger than `max_model_size_mb`.
    """
    from cluster.optimization.export.convert import convert

    variant = report.chosen.variant
    if variant is None or variant.card.format != "onnx":
        return None
    folder = place.new_folder()
    return convert(
        variant.folder / variant.card.artefact,
        folder / f"{report.model}.ort",
        store=place.store,
        workspace=folder,
        max_bytes=plan.max_size_bytes,
    )[0]


def write_phone_files(
    model: Any, example: Mapping[str, Array] | None, place: Workplace, plan: Plan
) -> tuple[dict[str, EdgeFile], dict[str, str]]:
    """`.tflite` and `.pte` of a torch module, by suffix; and those that could not be made, with
    the reason: no converter here, an operator it has not, too large, too slow."""
    from cluster.optimization.elsewhere.edge import LIBRARY_OF, make_edge_file
    from cluster.optimization.export.convert import module_of
    from cluster.optimization.intake.model import open_model

    made: dict[str, EdgeFile] = {}
    missing: dict[str, str] = {}
    folder = place.new_folder()
    given = open_model(model, store=place.store, workspace=folder, example=example)
    for suffix in LIBRARY_OF:
        try:
            module, rows = module_of(given)
            made[suffix] = make_edge_file(
                module,
                rows,
                folder / f"{given.name}{suffix}",
                max_bytes=plan.max_size_bytes,
                max_latency_ms=plan.max_latency_ms,
            )
        except ConfigError as error:
            missing[suffix] = error.message
    return made, missing


def _custom(operators: Sequence[object], wanted: Plan) -> None:
    for operator in operators:
        if not isinstance(operator, CustomOperator):
            raise ConfigError(
                f"custom_operators holds a {type(operator).__name__}; make each with "
                "custom_operator(...)",
                key="custom_operators",
            )
        if operator.is_opaque:
            wanted.ignored[f"custom_operators.{operator.name}"] = (
                "it was given with `fake`, so that nothing sees what it is made of: no runtime but "
                "torch itself can run it, and a module that calls it cannot be exported"
            )
        else:
            wanted.acts[f"custom_operators.{operator.name}"] = "exported as what it is made of"


def _smallest(report: OptimizeReport, constraints: Constraints) -> OptimizeReport:
    """Target size: the smallest that passed the gate, of those that keep the constraints."""
    measured = [each for each in report.candidates if each.status == "measured"]
    measured = [each for each in measured if each.size_bytes]
    allowed = [each for each in measured if not constraints.broken_by(each)]
    if not measured:
        return report
    chosen = min(allowed or measured, key=lambda each: (each.size_bytes, each.cost_ms))
    reason = (
        f"{chosen.name} is the smallest of {len(allowed or measured)} that passed the gate: "
        f"{chosen.size_bytes / 1e6:.1f} MB. {chosen.quality}."
    )
    return replace(report, chosen=chosen, reason=reason, constraints_met=bool(allowed))


def _token_shapes(
    model: str | Path | nn.Module, place: Workplace, tokens: int, wanted: Plan
) -> dict[str, tuple[int, ...]]:
    """One row of so many tokens for each integer input of free length."""
    from cluster.optimization.intake.model import open_model

    if not isinstance(model, str | Path):
        wanted.ignore("sequence_length", "a module's example says how long its inputs are")
        return {}
    given = open_model(model, store=place.store, workspace=place.new_folder())
    specs = given.card.raw_signature().inputs
    found = {
        spec.name: (1, *(tokens if size == -1 else size for size in spec.shape[1:]))
        for spec in specs
        if spec.datatype.startswith("INT") and -1 in spec.shape[1:]
    }
    if not found:
        wanted.ignore("sequence_length", "the model has no integer input of free length")
    return found


@contextmanager
def _mkldnn(is_used: bool) -> Iterator[None]:
    if is_used:
        yield
        return
    from torch.backends import mkldnn

    # Not its `flags(...)`: that sets how Intel's GPUs compute as well, and warns that none is here.
    before = mkldnn.set_flags(_enabled=False, _fp32_precision=None)[0]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        mkldnn.set_flags(_enabled=before, _fp32_precision=None)  # type: ignore[no-untyped-call]
