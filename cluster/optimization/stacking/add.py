"""Fit an ensemble's stacking step and put the model that it needs into the store."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.config.model_card import ModelCard, Provenance, SignatureCard, TensorCard
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore, new_version, seal
from cluster.errors import ConfigError
from cluster.optimization.stacking.fit import fit, out_of_fold_accuracy, write_onnx
from cluster.optimization.stacking.labelled import Labelled
from cluster.optimization.stacking.members import Tell, member_values, stacking_step
from cluster.tensors import Array

LABELS_FILE = "labels.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """`accuracy`: out of fold, of all members together; `alone`: of the same regression on one."""

    card: ModelCard
    num_rows: int
    accuracy: float
    alone: dict[str, float]


def add_stacking(
    name: str,
    config: SquadronConfig,
    store: ModelStore,
    data: Labelled,
    *,
    inverse_l2: float,
    tell: Tell,
) -> Fitted:
    """A new version of the model that the stacking step names. Raises: ConfigError."""
    step = stacking_step(name, config.ensembles[name])
    source = _source(name, step.model, config)
    if len(set(data.labels)) < 2:
        raise ConfigError(f"{len(set(data.labels))} different labels: two are needed", key="label")
    members = member_values(name, config, store, data.inputs, tell)
    tell(f"{source}: fit {len(data.labels)} rows")
    head = fit(members, data.labels, inverse_l2=inverse_l2)
    alone = {
        value: out_of_fold_accuracy({value: array}, data.labels, inverse_l2=inverse_l2)
        for value, array in members.items()
    }
    version = str(max((int(card.version) for card in store.versions(source)), default=0) + 1)
    with new_version(store.root, source, version) as folder:
        write_onnx(head, folder / "model.onnx")
        (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in head.classes))
        card = seal(folder, _card(source, version, members, head.classes, len(data.labels)))
    return Fitted(
        card=card,
        num_rows=len(data.labels),
        accuracy=out_of_fold_accuracy(members, data.labels, inverse_l2=inverse_l2),
        alone=alone,
    )


def _source(name: str, model: str, config: SquadronConfig) -> str:
    """What the fitted model is called in the store: where its variant looks for it."""
    variant = config.variants.get(model)
    if variant is None or variant.source is None or "/" in variant.source:
        raise ConfigError(
            f"ensembles.{name}: the stacking model {model!r} must be a variant whose `source` is a "
            "name without a version",
            key=f"variants.{model}.source",
        )
    return variant.source


def _card(
    name: str, version: str, members: dict[str, Array], classes: tuple[str, ...], num_rows: int
) -> ModelCard:
    widths = {value: array.reshape(len(array), -1).shape[1] for value, array in members.items()}
    output = TensorCard(
        name="probabilities", datatype="FP32", shape=[-1, len(classes)], labels=LABELS_FILE
    )
    return ModelCard(
        name=name,
        version=version,
        format="onnx",
        artefact="model.onnx",
        signature=SignatureCard(
            inputs=[
                TensorCard(name=value, datatype="FP32", shape=[-1, width])
                for value, width in widths.items()
            ],
            outputs=[output],
        ),
        provenance=Provenance(
            recipe=f"stacking: L2 logistic regression on {', '.join(widths)}, {num_rows} rows"
        ),
    )
