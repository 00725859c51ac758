"""What the planner is told of a variant is what its engine will hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.planning.demand import PlannedModelConfig
from cluster.config.store import CARD_FILE, ModelStore
from cluster.config.variant import VariantConfig
from cluster.engines.sharded.layers import layered_model
from cluster.errors import ConfigError
from cluster.optimization.facts.variant import as_served, facts_of, facts_of_artefact
from tests.cluster.engines.sharded.directories import llama, saved


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """With a model whose file says bfloat16."""
    folder = tmp_path / "store" / "random" / "1"
    card = saved(llama().bfloat16(), folder)
    (folder / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
    assert '"bfloat16"' in (folder / "config.json").read_text(encoding="utf-8")
    return ModelStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("options", "bits"), [({}, 32), ({"dtype": "bfloat16"}, 16), ({"dtype": "float32"}, 32)]
)
def test_weights_are_counted_in_the_data_type_that_is_computed_in(
    store: ModelStore, options: dict[str, str], bits: int
) -> None:
    variant = VariantConfig(source="random", options={**options})
    card, folder = store.card("random", ""), store.folder("random", "")
    asked, facts = facts_of("m", variant, PlannedModelConfig(), store)
    served = as_served(PlannedModelConfig(), variant, card)
    dtype = options.get("dtype", "float32")

    assert (asked.bits, asked.concurrency) == (bits, variant.batching.max_batch_size)
    # But for the last norm, which the estimate leaves out.
    assert facts.weight_bytes == pytest.approx(
        layered_model(card, folder, dtype).weight_bytes, rel=1e-3
    )
    # What a server asks when it plans `auto` by itself.
    assert (asked, facts) == (served, facts_of_artefact("m", card, folder, served))


def test_bits_that_the_plan_file_gives_stand(store: ModelStore) -> None:
    planned = PlannedModelConfig(bits=8)
    _, facts = facts_of("m", VariantConfig(source="random"), planned, store)

    assert facts.weight_bits == 8


def test_a_data_type_that_no_engine_has_is_refused(store: ModelStore) -> None:
    variant = VariantConfig(source="random", options={"dtype": "int3"})

    with pytest.raises(ConfigError, match="option dtype is 'int3'; allowed: float32"):
        facts_of("m", variant, PlannedModelConfig(), store)
