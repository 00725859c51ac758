"""The SDK asks a server's jobs for what it does itself embedded: the same function, the same
answers."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cluster.client import AsyncClient, Client, InferenceProfiler, Model
from cluster.errors import ConfigError, InvalidRequest, Unsupported
from cluster.optimization.progress import Silent
from tests.actors.client.test_remote import apart
from tests.actors.jobs.places import jobs_door

ROWS = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
QUICK = {"precision": "fp32"}
"""One recipe beside the original."""


class Steps(Silent):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def step(self, what: str) -> AbstractContextManager[None]:
        self.seen.append(what)
        return nullcontext()


async def test_a_profile_of_a_servers_model_has_the_layers_of_an_embedded_one(
    tmp_path: Path,
) -> None:
    async with jobs_door(tmp_path) as place:

        def work() -> None:
            with Client(store=place.store.root, device="cpu") as here, Client(place.url) as there:
                found = []
                for model in (here.load_model("mlp"), there.load_model("mlp")):
                    with InferenceProfiler(model, num_calls=3) as profiler:
                        if not model.is_remote:
                            model.predict(ROWS)
                        else:
                            profiler.seen = {"x": ROWS}
                    page = profiler.save_html(tmp_path / "page.html").read_text()
                    found.append((profiler._profile, page))
                (embedded, _), (served, page) = found
                assert embedded is not None
                assert served is not None
                layers = [
                    sorted((each["name"], each["operator"], each["output_bytes"]) for each in told)
                    for told in (embedded.layer_timings, served.layer_timings)
                ]
                assert layers[0] == layers[1] != []
                assert served.num_calls == 3
                assert served.memory_usage["layers_mb"] == embedded.memory_usage["layers_mb"]
                assert served.report.trace
                assert "mlp" in page

        await apart(work)
        assert list(place.scratch.iterdir()) == []


async def test_a_search_of_a_servers_model_is_that_of_an_embedded_one(tmp_path: Path) -> None:
    async with jobs_door(tmp_path) as place:
        steps = Steps()

        def search(client: Client, model: str | Model) -> Model:
            return client.optimize(
                model, level="basic", options=QUICK, data={"x": ROWS}, num_rounds=2, progress=steps
            )

        def work() -> None:
            with Client(store=place.store.root, device="cpu") as here, Client(place.url) as there:
                here.enable_model_cache(tmp_path / "cache")
                embedded = search(here, "mlp").report
                steps.seen.clear()
                model = search(there, there.load_model("mlp"))
                served = model.report
                assert embedded is not None
                assert served is not None
                for each in ("model", "sha256", "baseline", "data", "level", "threads", "ignored"):
                    assert getattr(served, each) == getattr(embedded, each)
                for ours, theirs in zip(embedded.candidates, served.candidates, strict=True):
                    for each in ("name", "engine", "precision", "status", "says", "quality"):
                        assert getattr(theirs, each) == getattr(ours, each)
                    assert theirs.verdict == ours.verdict
                    assert (theirs.timing is None) == (ours.timing is None)
                assert served.chosen in served.candidates
                assert served.as_dict()["candidates"]
                assert steps.seen[0] == "open the model"
                assert any("build and judge" in step for step in steps.seen)
                card = there.add_to_store(model, "faster")
                assert place.store.card("faster") == card
                assert (card.name, card.version) == ("faster", "1")
                assert there.add_to_store(model, "faster").version == "2"
                with pytest.raises(InvalidRequest, match="no name for a model"):
                    there.add_to_store(model, "../faster")
                if model.is_optimized():
                    with pytest.raises(Unsupported, match=r"variants\.faster"):
                        model.predict(ROWS)

        await apart(work)
        assert list(place.scratch.iterdir()) == []


async def test_what_is_wrong_is_told_in_the_class_and_words_of_an_embedded_call(
    tmp_path: Path,
) -> None:
    async with jobs_door(tmp_path) as place:

        def work() -> None:
            with Client(store=place.store.root, device="cpu") as here, Client(place.url) as there:
                for client, model in ((here, "mlp"), (there, there.load_model("mlp"))):
                    with pytest.raises(ConfigError, match="no option 'colour'; allowed: "):
                        client.optimize(model, options={"colour": 1})
                model = there.load_model("mlp")
                with pytest.raises(InvalidRequest, match="'timeout_s'"):
                    there.optimize(model, timeout_s=0)
                with pytest.raises(ConfigError, match="one in this process is ended by Ctrl-C"):
                    here.optimize("mlp", timeout_s=60)
                with pytest.raises(ConfigError, match="custom_operators is for a torch module"):
                    there.optimize(model, custom_operators=[object()])
                with pytest.raises(ConfigError, match="files for phones"):
                    there.optimize(model, target_device="mobile")
                with pytest.raises(InvalidRequest, match="no GPU; allowed here: cpu"):
                    there.optimize(model, target_device="cuda")
                with pytest.raises(InvalidRequest, match=r"'candidates\.0'"):
                    there.optimize(model, data={"x": ROWS}, candidates=[Path("/etc/passwd")])
                with pytest.raises(InvalidRequest, match="no model 'nobody'"):
                    there.optimize(model, data={"x": ROWS}, candidates=["nobody"])
                with pytest.raises(ConfigError, match=r"holds no \.npz file"):
                    there.optimize(model, data=tmp_path)
                with pytest.raises(InvalidRequest, match="served by fake, which counts nothing"):
                    InferenceProfiler(there.load_model("simple")).stop()

        await apart(work)


async def test_a_cancelled_task_ends_the_job_that_it_waited_for(tmp_path: Path) -> None:
    async with (
        jobs_door(tmp_path) as place,
        AsyncClient(place.url) as client,
        httpx.AsyncClient(base_url=place.url) as http,
    ):
        model = await client.load_model("mlp")
        search = asyncio.create_task(client.optimize(model, level="max", num_rounds=100))
        jobs: list[dict[str, Any]] = []
        while not jobs and not search.done():
            await asyncio.sleep(0.05)
            jobs = (await http.get("/admin/v1/jobs")).json()
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        (job,) = (await http.get("/admin/v1/jobs")).json()

        assert job["state"] == "cancelled"
