from __future__ import annotations

import numpy as np
import pytest

from cluster.client import InferenceProfiler
from cluster.errors import InvalidRequest
from tests.cluster.client.places import Place


@pytest.mark.parametrize("shards", [1, 2])
def test_a_language_model_is_profiled_by_phase_and_layer(place: Place, shards: int) -> None:
    with place.client() as client:
        model = (
            client.load_model(place.llama)
            if shards == 1
            else client.shard_model(place.llama, shards)
        )
        expected = model.generate([1, 2, 3], max_length=4)
        with InferenceProfiler(model, num_calls=2) as profiler:
            model.predict(input_ids=np.array([[1, 2, 3, 4, 5]]))
        found = profiler._profile
        assert found is not None
        names = [each["name"].split("/") for each in found.layer_timings]

        assert found.num_calls == 2
        assert {name[0] for name in names} >= {"prefill", "decode"}
        layers = {name[1] for name in names if name[1].startswith("layers.")}
        assert layers == {f"layers.{number}" for number in range(4)}
        for phase in ("prefill", "decode"):
            for part in ("self_attn", "mlp"):
                assert [phase, "layers.0", part] in [name[:3] for name in names]
        assert {"embed_tokens", "lm_head"} <= {name[1] for name in names}
        assert any(each["operator"] in ("aten::mm", "aten::addmm") for each in found.layer_timings)
        assert found.bottlenecks
        assert found.report.trace
        # The hooks are gone and the caches dropped: it generates as before.
        assert model.generate([1, 2, 3], max_length=4) == expected


def test_no_tokens_and_a_random_prompt(place: Place) -> None:
    with place.client() as client:
        model = client.load_model(place.llama)
        profiler = InferenceProfiler(model, num_calls=1)
        profiler.start()
        assert profiler.stop().layer_timings
        profiler.seen = {"input_ids": np.zeros((1, 0), np.int64)}
        with pytest.raises(InvalidRequest, match="no tokens"):
            profiler.stop()
