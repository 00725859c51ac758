"""The SDK embedded and against a running Squadron: the same calls, the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from cluster.client import (
    ABTest,
    AsyncClient,
    Client,
    InferenceMonitor,
    InferenceProfiler,
    Model,
    ModelEnsemble,
    validate_accuracy,
)
from cluster.config.store import ModelStore
from cluster.errors import InvalidRequest, ModelNotFound
from tests.e2e.photos import foolbox_photos
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models]

SENTENCES = ["A cat sits on the mat.", "A feline rests on the rug.", "The stock market fell.", ""]
SERVED = {
    "all-minilm-l6-v2": "text-embedder",
    "all-minilm-l6-v2-int8": "text-embedder-int8",
    "efficientnet-lite0": "photo-classifier-fp32",
    "efficientnet-lite0-int8": "photo-classifier-int8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """The same artefacts in this process and behind the server's door."""

    embedded: Client
    remote: Client

    def load(self, source: str) -> tuple[Model, Model]:
        return self.embedded.load_model(source), self.remote.load_model(SERVED[source])


@pytest.fixture(scope="module")
def both(prod: Running, store: ModelStore) -> Iterator[Both]:
    with (
        Client(store=store.root, device="cpu") as embedded,
        Client(prod.http, compression="gzip") as remote,
    ):
        yield Both(embedded=embedded, remote=remote)


@pytest.fixture(scope="module")
def photos(store: ModelStore) -> list[bytes]:
    return [path.read_bytes() for path, _ in foolbox_photos(store)[:6]]


def test_minilm_embeds_the_same_alone_and_in_batches(both: Both) -> None:
    for model in both.load("all-minilm-l6-v2"):
        alone = np.concatenate([model.predict(text)["embedding"] for text in SENTENCES])
        at_once = model.predict(text=SENTENCES)["embedding"]
        many = model.batch_predict(SENTENCES, batch_size=3)

        assert alone[0] @ alone[1] == pytest.approx(0.575, abs=0.002)
        assert np.allclose(at_once, alone, atol=1e-5)
        assert np.allclose(np.concatenate([each["embedding"] for each in many]), alone, atol=1e-5)


def test_both_ways_of_calling_minilm_give_the_same_numbers(both: Both) -> None:
    embedded, remote = both.load("all-minilm-l6-v2")

    for text in SENTENCES:
        a, b = embedded.predict(text)["embedding"], remote.predict(text)["embedding"]
        assert np.abs(a - b).max() < 1e-5


def test_both_ways_of_calling_efficientnet_give_the_same_labels_and_scores(
    both: Both, photos: list[bytes]
) -> None:
    embedded, remote = both.load("efficientnet-lite0")

    for photo in photos:
        a, b = embedded.predict(photo), remote.predict(photo)
        assert a["labels"].tolist() == b["labels"].tolist()
        assert np.abs(a["scores"] - b["scores"]).max() < 1e-5
        (p,) = embedded.predict(photo, outputs=["probabilities"]).values()
        (q,) = remote.predict(photo, outputs=["probabilities"]).values()
        assert p.shape == q.shape == (1, 1000)
        assert np.abs(p - q).max() < 1e-5


def test_signatures_are_the_same_both_ways(both: Both) -> None:
    for source in SERVED:
        embedded, remote = both.load(source)
        assert remote.signature.inputs == embedded.signature.inputs
        assert remote.signature.outputs == embedded.signature.outputs
        assert [spec.name for spec in remote.signature.extra_outputs] == [
            spec.name for spec in embedded.signature.extra_outputs
        ]


def test_dynamic_batches_and_streams_answer_as_single_calls_do(both: Both) -> None:
    for model in both.load("all-minilm-l6-v2"):
        expected = [model.predict(text)["embedding"] for text in SENTENCES]

        assert model.enable_dynamic_batching(4, 10_000, [4])
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(model.predict, SENTENCES))
        assert model.num_dynamic_batches == 1
        for one, each in zip(expected, found, strict=True):
            assert np.allclose(one, each["embedding"], atol=1e-5)

        with model.create_batch_stream(2, 60_000) as stream:
            assert stream.process(SENTENCES[0]) is None
            pair = stream.process(SENTENCES[1])
        assert pair is not None
        assert np.allclose(pair[1]["embedding"], expected[1], atol=1e-5)


def test_an_ensemble_is_the_same_of_embedded_served_and_mixed_members(
    both: Both, photos: list[bytes]
) -> None:
    fp32, served_fp32 = both.load("efficientnet-lite0")
    int8, served_int8 = both.load("efficientnet-lite0-int8")

    for strategy in ("averaging", "voting"):
        answers = []
        for members in ((fp32, int8), (served_fp32, served_int8), (fp32, served_int8)):
            with ModelEnsemble(members, strategy, [2, 1]) as ensemble:
                assert ensemble.output == "probabilities"
                answers.append(ensemble.predict(photos[0])["probabilities"])
        direct = [m.predict(photos[0], outputs=["probabilities"]) for m in (fp32, int8)]
        for answer in answers:
            assert np.abs(answer - answers[0]).max() < 1e-5
        if strategy == "averaging":
            mean = (2 * direct[0]["probabilities"] + direct[1]["probabilities"]) / 3
            assert np.abs(answers[0] - mean).max() < 1e-6


def test_an_ab_test_between_here_and_there_counts_every_call(both: Both) -> None:
    embedded, remote = both.load("all-minilm-l6-v2")
    with ABTest(embedded, remote, 0.5, seed=1) as test:
        vectors = [test.predict(SENTENCES[0])["embedding"] for _ in range(20)]
        found = test.get_statistics()

    assert found.model_a.requests + found.model_b.requests == 20
    assert min(found.model_a.requests, found.model_b.requests) > 0
    assert found.improvement_percent is not None
    assert max(float(np.abs(each - vectors[0]).max()) for each in vectors) < 1e-5


def test_accuracy_is_judged_the_same_here_and_there(both: Both, photos: list[bytes]) -> None:
    fp32, served_fp32 = both.load("efficientnet-lite0")
    int8, served_int8 = both.load("efficientnet-lite0-int8")

    here = validate_accuracy(fp32, int8, photos)
    there = validate_accuracy(served_fp32, served_int8, photos)
    across = validate_accuracy(fp32, served_fp32, photos)

    assert here.agreement.top1 is not None
    assert there.agreement.top1 == here.agreement.top1
    assert there.agreement.cosine.value == pytest.approx(here.agreement.cosine.value, abs=1e-4)
    assert across.agreement.max_abs < 1e-5
    assert across.passed


def test_costs_are_measured_both_ways(both: Both) -> None:
    for model in both.load("all-minilm-l6-v2"):
        with InferenceMonitor(model) as monitor:
            figures = model.benchmark([1, 4], data="A cat sits on the mat.", num_rounds=2)
            size = model.get_optimal_batch_size([1, 4], num_rounds=2)
            model.predict(SENTENCES[0])
            seen = monitor.get_metrics()

        assert [figure.batch_size for figure in figures] == [1, 4]
        assert all(figure.items_per_s > 0 for figure in figures)
        assert size in (1, 4)
        # The benchmark calls what is below `predict`.
        assert seen.num_calls == 1
        assert seen.throughput_rps > 0


def test_asyncio_gives_the_same_answers(prod: Running, both: Both) -> None:
    embedded, _ = both.load("all-minilm-l6-v2")
    expected = [embedded.predict(text)["embedding"] for text in SENTENCES]

    async def main() -> None:
        async with AsyncClient(prod.http) as client:
            assert await client.is_ready()
            model = await client.load_model("text-embedder")
            answers = await asyncio.gather(*(model.predict(text) for text in SENTENCES))
            for one, each in zip(expected, answers, strict=True):
                assert np.allclose(one, each["embedding"], atol=1e-5)

    asyncio.run(main())


def test_bad_inputs_are_refused_in_the_same_class_both_ways(both: Both) -> None:
    for model in both.load("all-minilm-l6-v2"):
        for wrong in ({"txt": "a"}, {"text": np.ones((1,), np.float32)}):
            with pytest.raises(InvalidRequest, match="text"):
                model.predict(wrong)
        with pytest.raises(InvalidRequest, match="nonsense"):
            model.predict(SENTENCES[0], outputs=["nonsense"])
        assert model.predict(SENTENCES[0])["embedding"].shape == (1, 384)
    with pytest.raises(ModelNotFound):
        both.remote.load_model("nobody")


def test_a_profile_made_on_the_cluster_has_the_layers_of_one_made_here(both: Both) -> None:
    found = []
    for model in both.load("all-minilm-l6-v2-int8"):
        profiler = InferenceProfiler(model, num_calls=3)
        profiler.start()
        model.predict(SENTENCES[0])
        found.append(profiler.stop())

    here, there = (
        sorted(
            (each["name"], each["operator"], each["output_bytes"]) for each in told.layer_timings
        )
        for told in found
    )
    assert here == there
    assert len(here) > 50
    assert found[1].call_ms > 0
    assert found[1].memory_usage["peak_mb"] > 0


def test_a_search_made_on_the_cluster_finds_the_candidates_of_one_made_here(
    both: Both, photos: list[bytes]
) -> None:
    """While it runs, the server goes on answering."""
    wishes = {"level": "basic", "options": {"precision": "fp32"}, "num_rounds": 2}
    here, there = both.load("efficientnet-lite0")
    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(both.remote.optimize, there, **wishes)
        num_answered = 0
        while not searching.done():
            assert there.predict(photos[0])["labels"].shape == (1, 5)
            num_answered += 1
        served = searching.result()
    embedded = both.embedded.optimize(here, **wishes)

    assert num_answered > 0
    assert served.report is not None
    assert embedded.report is not None
    ours, theirs = (
        [(each.name, each.engine, each.precision, each.status) for each in told.candidates]
        for told in (embedded.report, served.report)
    )
    assert ours == theirs
    assert len(ours) > 1
    for one, other in zip(embedded.report.candidates, served.report.candidates, strict=True):
        assert (one.verdict is None) == (other.verdict is None)
        if one.verdict is not None and other.verdict is not None:
            assert one.verdict.passed == other.verdict.passed
            assert one.verdict.agreement.cosine.value == pytest.approx(
                other.verdict.agreement.cosine.value, abs=1e-5
            )
    assert served.report.sha256 == embedded.report.sha256
    assert served.report.chosen.name in [each[0] for each in theirs]
