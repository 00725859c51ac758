"""Whether what shares a model's traffic can stand for one another."""

from __future__ import annotations

from collections.abc import Mapping, Set

from cluster.config.experiment import ExperimentConfig
from cluster.errors import ConfigError
from cluster.routing.ensembles.fit import spec_text
from cluster.tensors import Signature, TensorSpec


def check_arms(
    name: str, section: ExperimentConfig, signatures: Mapping[str, Signature], streams: Set[str]
) -> None:
    """A caller may meet any arm: each takes what the first takes and answers all that it answers,
    and a mirrored variant takes it. `signatures`: of what can be served here; what cannot is left
    out. `streams`: those with any number of responses.

    Raises: ConfigError naming the arm. Otherwise a share of the callers would get errors that look
    like their own mistakes, which no guardrail counts.
    """
    known = [arm for arm in section.split if arm in signatures]
    if not known:
        return
    first, *others = known
    for arm in others:
        where = f"experiments.{name}.split.{arm}"
        _check_inputs(where, arm, first, signatures)
        _check_outputs(where, arm, first, signatures)
        if (arm in streams) != (first in streams):
            one, many = (first, arm) if arm in streams else (arm, first)
            raise _refusal(where, arm, f"{many} streams its answers and {one} does not")
    for variant in section.mirror.variants if section.mirror is not None else ():
        if variant in signatures:
            _check_inputs(f"experiments.{name}.mirror.variants", variant, first, signatures)


def _check_inputs(where: str, arm: str, first: str, signatures: Mapping[str, Signature]) -> None:
    wanted, given = signatures[first].inputs, signatures[arm].inputs
    by_name = {spec.name: spec for spec in given}
    if by_name.keys() != {spec.name for spec in wanted}:
        raise _refusal(where, arm, f"{arm} takes {_texts(given)}, and {first} {_texts(wanted)}")
    for spec in wanted:
        found = by_name[spec.name]
        if not _fits(spec, found):
            text = f"{arm} takes {spec_text(found)}, and {first} {spec_text(spec)}"
            raise _refusal(where, arm, text)


def _check_outputs(where: str, arm: str, first: str, signatures: Mapping[str, Signature]) -> None:
    """Sizes may differ: how many labels there are is for callers to see."""
    given = {spec.name: spec for spec in signatures[arm].outputs}
    for spec in signatures[first].outputs:
        found = given.get(spec.name)
        if found is None:
            text = f"{arm} answers {_texts(signatures[arm].outputs)}, without {first}'s {spec.name}"
            raise _refusal(where, arm, text)
        if found.datatype != spec.datatype or len(found.shape) != len(spec.shape):
            text = f"{arm} answers {spec_text(found)}, and {first} {spec_text(spec)}"
            raise _refusal(where, arm, text)


def _fits(one: TensorSpec, other: TensorSpec) -> bool:
    """What is sent to one can be sent to the other; open sizes (-1) are looked at with every
    request."""
    return (
        one.datatype == other.datatype
        and len(one.shape) == len(other.shape)
        and all(-1 in (a, b) or a == b for a, b in zip(one.shape, other.shape, strict=True))
    )


def _texts(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(map(spec_text, specs)) or "nothing"


def _refusal(where: str, arm: str, text: str) -> ConfigError:
    return ConfigError(f"{where}: {text}; a caller may meet either", key=where, value=arm)
