"""Does a model run as its card says: tried once with zeros, before it goes into the store."""

from __future__ import annotations

from pathlib import Path

from cluster.config.model_card import ModelCard, TensorCard
from cluster.engines.engine import EngineSetup
from cluster.engines.table import check_installed, default_engine, make_engine
from cluster.errors import ConfigError, EngineFailed, InvalidRequest
from cluster.optimization.measure.as_before import torch_as_before


def try_zeros(card: ModelCard, folder: Path, what: str) -> None:
    """One row of zeros through the engine that will serve the model.

    Says nothing where it cannot know: the engine is not installed on this machine, or a size or a
    text had to be guessed and the model did not like the guess.

    Raises: ConfigError naming the file, the tensors that went in and what the model said.
    """
    name = default_engine(card.format)
    try:
        check_installed(name)
    except ConfigError:
        return
    engine = make_engine(name, EngineSetup(card=card, folder=folder))
    try:
        with torch_as_before(engine=name):
            engine.load()
            engine.warm_up((1,))
    except (EngineFailed, InvalidRequest) as error:
        given = ", ".join(_said(tensor) for tensor in card.signature.inputs)
        raise ConfigError(
            f"{what}: does not run with inputs {given}: {error.message}. Say the tensors that it "
            "takes and gives with --input and --output",
            file=what,
            key="signature",
            value=given,
        ) from None
    finally:
        engine.close()


def _said(tensor: TensorCard) -> str:
    return f"{tensor.name}:{tensor.datatype}:{','.join(map(str, tensor.shape))}"
