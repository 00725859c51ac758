"""A check for every public method of the SDK: it fails when the method's body is `return self`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.client import (
    ABTest,
    AsyncClient,
    Client,
    CustomOperator,
    InferenceMonitor,
    InferenceProfiler,
    Model,
    ModelEnsemble,
    custom_operator,
)
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, SquadronError
from tests.cluster.client.places import Place, row

Probe = Callable[[Place, Path], None]


@contextmanager
def echo(place: Place) -> Iterator[Model]:
    with place.client() as client:
        yield client.load_model("echo")


def _y(answer: Any) -> float:
    return float(answer["y"][0, 0])


def client_load_model(place: Place, folder: Path) -> None:
    with echo(place) as model:
        assert _y(model.predict(row(2))) == 5


def client_list_models(place: Place, folder: Path) -> None:
    with place.client() as client:
        assert {"echo", "mlp"} <= set(client.list_models())


def client_is_ready(place: Place, folder: Path) -> None:
    client = place.client()
    assert client.is_ready() is True
    client.close()
    assert client.is_ready() is False


def client_optimize(place: Place, folder: Path) -> None:
    with place.client() as client:
        client.enable_model_cache(folder, 1.0)
        made = client.optimize(
            "mlp", level="basic", options={"precision": "fp32"}, num_rounds=2
        )  # fmt: skip
        assert made.report is not None
        assert made.report.model == "mlp"


def client_accelerate(place: Place, folder: Path) -> None:
    with place.client() as client:
        client.enable_model_cache(folder, 1.0)
        made = client.accelerate("mlp", options={"precision": "dynamic"}, num_rounds=2)
        assert made.report is not None
        assert {each.precision for each in made.report.candidates[1:]} == {"int8"}


def client_add_to_store(place: Place, folder: Path) -> None:
    with Client(store=folder / "own", device="cpu") as client:
        client.enable_model_cache(folder / "cache", 1.0)
        file = place.store / "mlp" / "1" / "model.onnx"
        made = client.optimize(file, options={"precision": "dynamic"}, num_rounds=2)
        assert client.add_to_store(made, "kept").name == "kept"
        assert client.list_models() == ["kept"]
        with pytest.raises(ConfigError, match="not made by optimize"):
            client.add_to_store(client.load_model("kept"), "again")


def client_shard_model(place: Place, folder: Path) -> None:
    with place.client() as client:
        whole = client.load_model("mlp")
        cut = client.shard_model("mlp", 2)
        rows = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
        assert cut.backend.num_stages == 2  # type: ignore[attr-defined]  # a staged one
        for name, array in whole.predict(rows).items():
            assert np.allclose(cut.predict(rows)[name], array, atol=1e-6)


def client_enable_model_cache(place: Place, folder: Path) -> None:
    with place.client() as client:
        client.enable_model_cache(folder / "cache", 0.25)
        client.optimize("mlp", options={"precision": "dynamic"}, num_rounds=2)
        assert list((folder / "cache").glob("??/*/entry.json"))


def client_benchmark(place: Place, folder: Path) -> None:
    with place.client() as client:
        figures = client.benchmark(client.load_model("echo"), [1, 4])
        assert [figure.batch_size for figure in figures] == [1, 4]


def client_validate_accuracy(place: Place, folder: Path) -> None:
    with place.client() as client:
        first, second = client.load_model("mlp"), client.load_model("mlp")
        verdict = client.validate_accuracy(first, second, [np.ones((1, 64), np.float32)])
        assert verdict.passed
        assert verdict.agreement.num_items == 1


def client_close(place: Place, folder: Path) -> None:
    client = place.client()
    model = client.load_model("echo")
    client.close()
    client.close()
    with pytest.raises(EngineFailed, match="unloaded"):
        model.predict(row())
    with pytest.raises(ConfigError, match="closed"):
        client.load_model("echo")


def model_predict(place: Place, folder: Path) -> None:
    with echo(place) as model:
        assert model.predict([[1, 2, 3, 4]])["y"].tolist() == [[3, 5, 7, 9]]
        assert model.predict(x=[[0, 0, 0, 0]], outputs=["y"])["y"].tolist() == [[1, 1, 1, 1]]
        with pytest.raises(InvalidRequest, match="'z'"):
            model.predict(z=[[1, 2, 3, 4]])
        with pytest.raises(InvalidRequest, match=r"\[-1, 4\]"):
            model.predict([[1, 2, 3]])
        with pytest.raises(InvalidRequest, match="unexpected output 'q'"):
            model.predict(row(), outputs=["q"])


def model_batch_predict(place: Place, folder: Path) -> None:
    with echo(place) as model:
        found = model.batch_predict([row(i, rows=1 + i % 2) for i in range(7)], batch_size=3)
        assert [_y(answer) for answer in found] == [1, 3, 5, 7, 9, 11, 13]
        assert [len(answer["y"]) for answer in found] == [1, 2, 1, 2, 1, 2, 1]


def model_generate(place: Place, folder: Path) -> None:
    with place.client() as client:
        model = client.load_model(place.llama)
        with_cache = model.generate([1, 2, 3], max_length=6)
        assert len(with_cache) == 6
        assert model.generate([1, 2, 3], max_length=6, use_cache=False) == with_cache


def model_enable_dynamic_batching(place: Place, folder: Path) -> None:
    with echo(place) as model:
        setting = model.enable_dynamic_batching(4, 10_000, [4])
        assert setting.acts
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda i: _y(model.predict(row(i))), range(4)))
        assert answers == [1, 3, 5, 7]
        # Full: it left at once, long before the delay was over.
        assert model.num_dynamic_batches == 1
        with pytest.raises(ConfigError, match="preferred_batch_sizes"):
            model.enable_dynamic_batching(4, 1, [8])


def model_create_batch_stream(place: Place, folder: Path) -> None:
    with echo(place) as model, model.create_batch_stream(2, 60_000) as stream:
        assert stream.process(row(1)) is None
        for wrong in ({"x": np.zeros((1, 3), np.float32)}, {"z": [1.0]}, "no array"):
            with pytest.raises(InvalidRequest):
                stream.process(wrong)
        found = stream.process(row(2))
        assert found is not None
        assert [_y(answer) for answer in found] == [3, 5]


def model_benchmark(place: Place, folder: Path) -> None:
    with echo(place) as model:
        (figure,) = model.benchmark([2], num_rounds=2)
        assert figure["batch_size"] == 2
        assert figure.items_per_s == pytest.approx(2e3 / figure.latency_ms)
        for sizes in ([], [0], ["1"]):
            with pytest.raises(ConfigError, match="batch"):
                model.benchmark(sizes)  # type: ignore[arg-type]


def model_get_optimal_batch_size(place: Place, folder: Path) -> None:
    with echo(place) as model:
        assert model.get_optimal_batch_size([8], num_rounds=2) == 8
        with pytest.raises(ConfigError, match="no batch size keeps"):
            model.get_optimal_batch_size([8], max_latency_ms=1e-9, num_rounds=2)


def model_set_batch_size(place: Place, folder: Path) -> None:
    with echo(place) as model, InferenceMonitor(model) as monitor:
        model.set_batch_size(5)
        model.batch_predict([row(i) for i in range(10)])
        assert monitor.get_metrics().num_calls == 2
        with pytest.raises(InvalidRequest, match="batch_size is 0"):
            model.set_batch_size(0)


def model_is_optimized(place: Place, folder: Path) -> None:
    with echo(place) as model:
        assert model.is_optimized() is False


def model_enable_gpu_acceleration(place: Place, folder: Path) -> None:
    with place.client() as client, client.load_model("mlp") as model:
        setting = model.enable_gpu_acceleration()
        assert setting.acts == torch.cuda.is_available()
        assert setting.acts or "cpu" in setting.says
        assert model.predict(np.ones((1, 64), np.float32))
        with pytest.raises(ConfigError, match="no GPU"):
            model.enable_gpu_acceleration("cpu")


def model_enable_efficient_attention(place: Place, folder: Path) -> None:
    with place.client() as client:
        assert client.load_model(place.llama).enable_efficient_attention().acts
        without = client.load_model("echo").enable_efficient_attention()
        assert not without.acts


def model_enable_kv_cache(place: Place, folder: Path) -> None:
    with place.client() as client:
        model = client.load_model(place.llama)
        expected = model.generate([1, 2, 3], max_length=5)
        for strategy in ("static", "dynamic"):
            assert model.enable_kv_cache(8, strategy).acts
            assert model.generate([1, 2, 3], max_length=5) == expected
            with pytest.raises(InvalidRequest, match="8 positions"):
                model.generate([1, 2, 3], max_length=6)
        with pytest.raises(ConfigError, match="static, dynamic"):
            model.enable_kv_cache(8, "magic")


def model_enable_memory_optimization(place: Place, folder: Path) -> None:
    with place.client() as client:
        model = client.load_model(place.llama)
        expected = model.generate([1, 2, 3], max_length=5)
        found = model.enable_memory_optimization(True, True, 0.3)
        assert {name: setting.acts for name, setting in found.items()} == {
            "max_memory_mb": True,
            "enable_cpu_offload": True,
            "enable_activation_checkpointing": False,
        }
        assert model.generate([1, 2, 3], max_length=5) == expected
        with pytest.raises(ConfigError, match="max_memory_mb"):
            model.enable_memory_optimization(max_memory_mb=0.001)


def model_observed(place: Place, folder: Path) -> None:
    with echo(place) as model, InferenceMonitor(model) as monitor:
        with model.observed({"x": row(rows=3)}):
            pass
        assert monitor.get_metrics().num_calls == 1


def model_watch(place: Place, folder: Path) -> None:
    with echo(place) as model:
        profiler = InferenceProfiler(model)
        model.watch(profiler)
        model.predict(row(4))
        assert profiler.seen is not None
        assert profiler.seen["x"][0, 0] == 4


def model_unwatch(place: Place, folder: Path) -> None:
    with echo(place) as model:
        profiler = InferenceProfiler(model)
        model.watch(profiler)
        model.unwatch(profiler)
        model.predict(row(4))
        assert profiler.seen is None


def model_close(place: Place, folder: Path) -> None:
    with echo(place) as model:
        model.close()
        model.close()
        with pytest.raises(EngineFailed, match="unloaded"):
            model.predict(row())


def model_unload(place: Place, folder: Path) -> None:
    with echo(place) as model:
        model.unload()
        assert model.is_closed


@contextmanager
def pair(place: Place) -> Iterator[tuple[Model, Model]]:
    with place.client() as client:
        yield client.load_model("mlp"), client.load_model("mlp")


ROWS = np.random.default_rng(1).normal(size=(24, 64)).astype(np.float32)


def ensemble_predict(place: Place, folder: Path) -> None:
    with pair(place) as models, ModelEnsemble(models) as ensemble:
        (name,) = ensemble.predict(ROWS)
        assert np.allclose(ensemble.predict(ROWS)[name], models[0].predict(ROWS)[name])


def ensemble_set_strategy(place: Place, folder: Path) -> None:
    with pair(place) as models, ModelEnsemble(models) as ensemble:
        (name,) = models[0].predict(ROWS)
        assert ensemble.set_strategy("voting", [3, 1]).acts
        votes = ensemble.predict(ROWS)[name]
        assert ensemble.weights == (3, 1)
        assert votes.sum(axis=1).tolist() == [1.0] * 24
        assert votes.argmax(1).tolist() == models[0].predict(ROWS)[name].argmax(1).tolist()
        for strategy, weights in (("luck", None), ("voting", [1]), ("averaging", [-1, 2])):
            with pytest.raises(ConfigError):
                ensemble.set_strategy(strategy, weights)


def ensemble_fit(place: Place, folder: Path) -> None:
    with pair(place) as models, ModelEnsemble(models, "stacking") as ensemble:
        with pytest.raises(InvalidRequest, match="fit"):
            ensemble.predict(ROWS)
        labels = ["high" if each > 0 else "low" for each in ROWS[:, 0]]
        items = [ROWS[i : i + 1] for i in range(24)]
        assert ensemble.fit(items, labels, c=1e4).acts
        found = ensemble.predict(ROWS)["probabilities"].argmax(1)
        assert [ensemble.classes[each] for each in found] == labels


def ensemble_close(place: Place, folder: Path) -> None:
    with pair(place) as models:
        ensemble = ModelEnsemble(models)
        ensemble.close()
        with pytest.raises(InvalidRequest, match="closed"):
            ensemble.predict(ROWS)
        assert models[0].predict(ROWS)


def ensemble_unload(place: Place, folder: Path) -> None:
    with pair(place) as models:
        ModelEnsemble(models).unload()
        assert models[0].is_closed
        assert models[1].is_closed


def ab_choose(place: Place, folder: Path) -> None:
    with pair(place) as models:
        test = ABTest(*models, 0.25)
        sides = [test.choose() for _ in range(400)]
        assert 60 < sides.count("b") < 140
        assert len({test.choose(key="anna") for _ in range(20)}) == 1
        with pytest.raises(ConfigError, match="0 to 1"):
            ABTest(*models, 1.5)


def ab_predict(place: Place, folder: Path) -> None:
    with pair(place) as models, ABTest(*models, 1.0) as test:
        (name,) = test.predict(ROWS)
        assert np.array_equal(test.predict(ROWS)[name], models[1].predict(ROWS)[name])


def ab_get_statistics(place: Place, folder: Path) -> None:
    with pair(place) as models, ABTest(*models, 0.5) as test:
        for index in range(20):
            test.predict(ROWS, key=str(index))
        with pytest.raises(InvalidRequest):
            test.predict(ROWS[:, :3])
        found = test.get_statistics()
        assert found.model_a.requests + found.model_b.requests == 21
        assert found["model_a"]["errors"] + found["model_b"]["errors"] == 1
        assert found.model_a.avg_latency_ms is not None
        assert found.model_b.avg_latency_ms is not None
        assert found.improvement_percent == pytest.approx(
            100 * (1 - found.model_b.avg_latency_ms / found.model_a.avg_latency_ms)
        )


def ab_report_quality(place: Place, folder: Path) -> None:
    with pair(place) as models, ABTest(*models) as test:
        for value in (1.0, 0.0):
            test.report_quality("b", value)
        assert test.get_statistics().model_b.avg_quality == 0.5
        assert test.get_statistics().model_a.avg_quality is None


def ab_close(place: Place, folder: Path) -> None:
    with pair(place) as models:
        test = ABTest(*models)
        test.close()
        with pytest.raises(InvalidRequest, match="closed"):
            test.predict(ROWS)


def ab_unload(place: Place, folder: Path) -> None:
    with pair(place) as models:
        ABTest(*models).unload()
        assert models[0].is_closed
        assert models[1].is_closed


def monitor_start(place: Place, folder: Path) -> None:
    with echo(place) as model:
        monitor = InferenceMonitor(model)
        with pytest.raises(InvalidRequest, match="start"):
            monitor.get_metrics()
        monitor.start()
        model.predict(row(rows=2))
        monitor.start()
        assert monitor.get_metrics().num_calls == 0


def monitor_get_metrics(place: Place, folder: Path) -> None:
    with echo(place) as model:
        monitor = InferenceMonitor(model)
        monitor.start()
        model.predict(row(rows=2))
        with pytest.raises(InvalidRequest):
            model.predict([[1]])
        found = monitor.get_metrics()
        assert (found.num_calls, found.num_errors) == (1, 1)
        assert found.rows_per_s == pytest.approx(2 * found.throughput_rps)
        assert found["latency_ms"] == found["p50_ms"] > 0
        assert 10 < found["memory_mb"] < 100_000


def monitor_stop(place: Place, folder: Path) -> None:
    with echo(place) as model:
        monitor = InferenceMonitor(model)
        monitor.start()
        model.predict(row())
        stopped = monitor.stop()
        model.predict(row())
        assert stopped.num_calls == monitor.get_metrics().num_calls == 1
        assert monitor.get_metrics().throughput_rps == stopped.throughput_rps


def monitor_close(place: Place, folder: Path) -> None:
    with echo(place) as model:
        monitor = InferenceMonitor(model)
        monitor.start()
        monitor.close()
        model.predict(row())
        assert monitor.get_metrics().num_calls == 0


def monitor_saw(place: Place, folder: Path) -> None:
    with echo(place) as model:
        monitor = InferenceMonitor(model)
        monitor.start()
        monitor.saw({"x": row()}, rows=1, seconds=0.25, is_error=False)
        assert monitor.get_metrics().latency_ms == 250


def profiler_start(place: Place, folder: Path) -> None:
    with place.client() as client, client.load_model("mlp") as model:
        profiler = InferenceProfiler(model, num_calls=3)
        profiler.start()
        model.predict(ROWS)
        assert profiler.seen is not None


def profiler_stop(place: Place, folder: Path) -> None:
    with place.client() as client, client.load_model("mlp") as model:
        profiler = InferenceProfiler(model, num_calls=3)
        profiler.start()
        model.predict(ROWS)
        found = profiler.stop()
        assert found["num_calls"] == 3
        assert {each["operator"] for each in found.layer_timings} & {"Gemm", "MatMul", "FusedGemm"}
        assert found.memory_usage["peak_mb"] > 10
        assert found.bottlenecks


def profiler_save_html(place: Place, folder: Path) -> None:
    with place.client() as client, client.load_model("mlp") as model:
        profiler = InferenceProfiler(model, num_calls=2)
        with pytest.raises(InvalidRequest, match="stop"):
            profiler.save_html(folder / "p.html")
        profiler.start()
        profiler.stop()
        text = profiler.save_html(folder / "p.html").read_text()
        assert "<svg" in text
        assert "src=" not in text


def profiler_close(place: Place, folder: Path) -> None:
    with echo(place) as model:
        profiler = InferenceProfiler(model)
        profiler.start()
        profiler.close()
        model.predict(row())
        assert profiler.seen is None


def profiler_saw(place: Place, folder: Path) -> None:
    with echo(place) as model:
        profiler = InferenceProfiler(model)
        profiler.saw({"x": row(9)}, rows=1, seconds=0.1, is_error=False)
        assert profiler.seen is not None


def operator_add_to_graph(place: Place, folder: Path) -> None:
    from tests.cluster.client.own_operators import doubled_graph, twice

    operator = custom_operator("mine::Twice", onnx_function=twice())
    with Client(device="cpu") as client:
        with pytest.raises(ConfigError):
            client.load_model(doubled_graph(folder / "bare.onnx"))
        made = operator.add_to_graph(folder / "bare.onnx", folder / "whole.onnx")
        (found,) = client.load_model(made).predict([[1, 2, 3, 4]]).values()
        assert found.tolist() == [[2, 4, 6, 8]]


def operator_close(place: Place, folder: Path) -> None:
    from tests.cluster.client.own_operators import plus_one

    operator: CustomOperator = custom_operator("probing::plus_one", plus_one)
    assert float(operator(torch.ones(1))) == 2
    operator.close()
    with pytest.raises(ConfigError, match="computes nothing"):
        operator(torch.ones(1))
    # The name is free again.
    custom_operator("probing::plus_one", plus_one).close()


def _run(work: Callable[[AsyncClient], Any], place: Place) -> None:
    async def main() -> None:
        async with AsyncClient(store=place.store, device="cpu") as client:
            await work(client)

    asyncio.run(main())


def async_client(method: str) -> Probe:
    async def work(client: AsyncClient, place: Place, folder: Path) -> None:
        match method:
            case "is_ready":
                assert await client.is_ready() is True
            case "list_models":
                assert "echo" in await client.list_models()
            case "load_model":
                model = await client.load_model("echo")
                assert _y(await model.predict(row(2))) == 5
            case "optimize" | "accelerate":
                client.sync.enable_model_cache(folder, 1.0)
                call = getattr(client, method)
                made = await call("mlp", options={"precision": "dynamic"}, num_rounds=2)
                assert made.sync.report.model == "mlp"
            case "shard_model":
                cut = await client.shard_model("mlp", 2)
                assert cut.sync.backend.num_stages == 2  # type: ignore[attr-defined]
            case "enable_model_cache":
                await client.enable_model_cache(folder / "cache", 0.25)
                await client.optimize("mlp", options={"precision": "dynamic"}, num_rounds=2)
                assert list((folder / "cache").glob("??/*/entry.json"))
            case "benchmark":
                figures = await client.benchmark(await client.load_model("echo"), [1, 4])
                assert [figure.batch_size for figure in figures] == [1, 4]
            case "add_to_store":
                file = place.store / "mlp" / "1" / "model.onnx"
                async with AsyncClient(store=folder / "own", device="cpu") as own:
                    own.sync.enable_model_cache(folder / "cache", 1.0)
                    made = await own.optimize(file, options={"precision": "dynamic"}, num_rounds=2)
                    assert (await own.add_to_store(made, "kept")).name == "kept"
                    assert own.sync.list_models() == ["kept"]
            case "validate_accuracy":
                a, b = await client.load_model("mlp"), await client.load_model("mlp")
                assert (await client.validate_accuracy(a, b, [ROWS[:1]])).passed
            case "close":
                await client.close()
                with pytest.raises(SquadronError):
                    await client.load_model("echo")

    def probe(place: Place, folder: Path) -> None:
        _run(lambda client: work(client, place, folder), place)

    return probe


def async_model(method: str) -> Probe:
    async def work(client: AsyncClient, place: Place) -> None:
        model = await client.load_model(place.llama if method == "generate" else "echo")
        match method:
            case "predict":
                assert _y(await model.predict(row(3))) == 7
            case "batch_predict":
                found = await model.batch_predict([row(i) for i in range(3)], batch_size=2)
                assert [_y(each) for each in found] == [1, 3, 5]
            case "generate":
                assert len(await model.generate([1, 2], max_length=3)) == 3
            case "benchmark":
                (figure,) = await model.benchmark([2], num_rounds=2)
                assert figure.batch_size == 2
            case "get_optimal_batch_size":
                assert await model.get_optimal_batch_size([4], num_rounds=2) == 4
            case "close" | "unload":
                await getattr(model, method)()
                assert model.sync.is_closed

    return lambda place, folder: _run(lambda client: work(client, place), place)


KINDS = {
    "client": Client,
    "model": Model,
    "ensemble": ModelEnsemble,
    "ab": ABTest,
    "monitor": InferenceMonitor,
    "profiler": InferenceProfiler,
    "operator": CustomOperator,
}
