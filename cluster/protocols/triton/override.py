"""A `ModelConfig` sent with a load, laid over a variant: what it names is replaced, the rest stays.

Triton takes such a configuration as the whole one and completes it from the artefact; here what the
operator wrote remains in force where the caller says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cluster.config.report import explain
from cluster.config.sequences import SequencesConfig
from cluster.config.variant import BatchingConfig, VariantConfig
from cluster.errors import InvalidRequest
from cluster.protocols.triton.batching import batching_section
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.settings import take_placement, take_settings, with_settings
from cluster.protocols.triton.variant import variant_section

_SIZES = ("max_batch_size",)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidOver:
    """`lost`: what the caller said that has no effect here."""

    variant: VariantConfig
    lost: tuple[str, ...] = ()


def lay_over(variant: VariantConfig, config: Any, *, is_batched: bool) -> LaidOver:
    """Raises: InvalidRequest with the fields that cannot be served, or values that do not fit."""
    if config.max_batch_size > 0 and not is_batched:
        raise InvalidRequest("the model does not support batching, max_batch_size must be 0")
    sent, config = config, type(config)()
    config.CopyFrom(sent)
    placement, settings = take_placement(config), take_settings(config)
    if is_batched and not config.max_batch_size:
        config.max_batch_size = variant.batching.max_batch_size
    findings = Findings(model="")
    # Tensors are those of the artefact; what the caller says of them is checked elsewhere.
    section = variant_section(config, findings)
    refused = [each for each in findings.found if each.outcome == "refused"]
    if refused:
        raise InvalidRequest("; ".join(f"{each.field}: {each.reason}" for each in refused))
    content = variant.model_dump(exclude_unset=True)
    content |= {key: value for key, value in section.items() if key != "batching"}
    content["batching"] = _batching(variant.batching, config)
    if placement is not None:
        content["placement"] = placement
    content = with_settings(content, settings)
    if "sequences" in section:
        content["sequences"] = _sequences(variant.sequences, section["sequences"])
    dropped = [each for each in findings.found if each.outcome == "dropped"]
    lost = [f"{each.field}: {each.reason}" for each in dropped]
    return LaidOver(variant=_checked(content), lost=tuple(lost))


def _batching(batching: BatchingConfig, config: Any) -> dict[str, object]:
    kept = batching.model_dump(exclude_unset=True)
    said = batching_section(config, Findings(model=""))
    if config.HasField("dynamic_batching"):
        # A batcher that is written is meant as a whole, as in a configuration file.
        kept = {key: value for key, value in kept.items() if key in _SIZES}
        return {**kept, **said, "mode": "fixed"}
    return {**kept, **{key: value for key, value in said.items() if key in _SIZES}}


def _sequences(sequences: SequencesConfig | None, section: Any) -> dict[str, object]:
    """Raises: InvalidRequest for a model that has none: its clients send no sequences."""
    if sequences is None:
        raise InvalidRequest("sequence_batching: the model is not served with sequences")
    # A configuration cannot say the values a state begins with, except that they are zeros.
    initial = {item.input: item.initial for item in sequences.state}
    states = [
        {**state, "initial": initial.get(state["input"])} for state in section.get("state", [])
    ]
    return {**section, "state": states}


def _checked(content: dict[str, object]) -> VariantConfig:
    try:
        return VariantConfig.model_validate(content)
    except ValidationError as error:
        told = explain(error, VariantConfig, "config")
        raise InvalidRequest(told.message) from None
