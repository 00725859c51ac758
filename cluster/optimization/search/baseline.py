"""What a search compares with: the model as it was given, run as it would be without the search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.engines.table import default_engine
from cluster.optimization.intake.model import GivenModel
from cluster.optimization.measure.variant import Run, Variant, opened
from cluster.optimization.search.recipe import Target
from cluster.optimization.search.report import Candidate
from cluster.tensors import Array

EAGER = "torch-eager-fp32"
ORIGINAL = "original"


def baseline_of(asked: GivenModel, graph: GivenModel) -> tuple[Candidate, Variant]:
    """Eager torch for a module; else the file as it would be served today, TorchScript and
    torch.export programs by torch. `asked`: as it was given, `graph`: the same as ONNX."""
    is_eager = graph.module is not None
    of = asked if asked.onnx is None and not is_eager else graph
    engine = default_engine(of.card.format)
    variant = Variant(card=of.card, folder=of.folder, engine=engine)
    candidate = Candidate(
        name=EAGER if is_eager else ORIGINAL,
        engine="torch" if is_eager else engine,
        precision=of.card.precision,
        says="the module as it is, run eagerly" if is_eager else "the model as it was given",
        model=graph.name,
        status="measured",
        is_reference=True,
        variant=None if is_eager else variant,
        size_bytes=variant.num_bytes,
    )
    return candidate, variant


@contextmanager
def run_of(given: GivenModel, variant: Variant, threads: int) -> Iterator[Run]:
    if given.module is None:
        with opened(variant, threads=threads) as run:
            yield run
        return
    yield eager(given, threads)


def eager(given: GivenModel, threads: int, device: Target = "cpu") -> Run:
    """The torch module itself; on a GPU a copy of it, answers fetched back."""
    import copy

    import torch

    from cluster.optimization.export.module import named_outputs

    module, names = given.module, [spec.name for spec in given.card.signature.inputs]
    assert module is not None, "only modules are run eagerly"
    torch.set_num_threads(threads)
    if device == "cuda":
        module = copy.deepcopy(module).to(device)

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            answer = module(*(torch.from_numpy(inputs[name]).to(device) for name in names))
        return {name: value.cpu().numpy() for name, value in named_outputs(answer).items()}

    return run
