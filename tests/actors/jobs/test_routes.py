"""The jobs' part of the admin API over a real socket."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import httpx
import orjson

from cluster.protocols.extensions.admin_schemas import ADMIN_SCHEMAS
from tests.actors.jobs.places import JobsPlace, jobs_door
from tests.actors.listeners.test_admin_schemas import unsaid

LONG = {"kind": "optimize", "model": "mlp", "level": "max", "num_rounds": 100}


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = (await client.get(f"/admin/v1/jobs/{job_id}")).json()
        if found["state"] not in ("queued", "running"):
            return found
        await asyncio.sleep(0.05)


async def test_jobs_wait_for_each_other_and_end_on_request(tmp_path: Path) -> None:
    async with jobs_door(tmp_path) as place, httpx.AsyncClient(base_url=place.url) as client:
        first = await client.post("/admin/v1/jobs", json=LONG)
        profile = {"kind": "profile", "model": "mlp", "id": "0123456789abcdef"}
        second = await client.post("/admin/v1/jobs", json=profile)
        asked_twice = await client.post("/admin/v1/jobs", json=profile)
        running = (await client.get("/admin/v1/jobs")).json()
        cancelled = await client.delete(f"/admin/v1/jobs/{first.json()['id']}")
        again = await client.delete(f"/admin/v1/jobs/{first.json()['id']}")
        done = await ended(client, second.json()["id"])

        assert (first.status_code, second.status_code) == (202, 202)
        assert asked_twice.json() == second.json()
        assert second.json()["id"] == "0123456789abcdef"
        assert [each["state"] for each in running] == ["running", "queued"]
        assert unsaid(ADMIN_SCHEMAS["Jobs"], running) == []
        assert cancelled.json()["state"] == "cancelled"
        assert again.json() == cancelled.json()
        assert done["state"] == "succeeded"
        assert unsaid(ADMIN_SCHEMAS["Job"], {**done, "result": None}) == []
        assert done["result"]["report"]["layer_timings"]
        assert list(place.scratch.iterdir()) == []


async def test_a_job_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    async with jobs_door(tmp_path) as place, httpx.AsyncClient(base_url=place.url) as client:
        asked = await client.post("/admin/v1/jobs", json={**LONG, "timeout_s": 0.2})
        found = await ended(client, asked.json()["id"])

        assert found["state"] == "failed"
        assert found["error"] == {
            "type": "DeadlineExceeded",
            "message": (
                "it did not end within its timeout_s (0.2); ask for more, what was built is found "
                "again"
            ),
        }
        assert found["result"] is None
        assert list(place.scratch.iterdir()) == []


async def test_what_no_job_can_be_made_of_is_refused_at_once(tmp_path: Path) -> None:
    async with jobs_door(tmp_path) as place, httpx.AsyncClient(base_url=place.url) as client:
        profile = {"kind": "profile", "model": "mlp"}
        missing = {"name": "x", "datatype": "FP32", "shape": [1, 64]}
        for body, code, said in (
            (b"[]", 400, "must be an object"),
            (b'{"kind": "profile"}', 400, "'model'"),
            (orjson.dumps({**profile, "model": "nobody"}), 404, "no model 'nobody'"),
            (orjson.dumps({**profile, "inputs": [missing]}), 400, "exactly one of 'data'"),
            (orjson.dumps({**profile, "inputs": 3}), 400, "'inputs' must be an array"),
        ):
            headers = {"content-type": "application/json"}
            answer = await client.post("/admin/v1/jobs", content=body, headers=headers)
            assert (answer.status_code, said in answer.text) == (code, True), answer.text
        assert (await client.get("/admin/v1/jobs")).json() == []
        await refuses_what_is_not_there(client)
        assert await refused_from_afar(place) == 403


async def refuses_what_is_not_there(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/store")):
        path = f"/admin/v1/jobs/nothing{path}"
        content = None if method == "GET" else {"name": "x"}
        answer = await client.request(method, path, json=content)
        assert (answer.status_code, answer.json()["error"]) == (404, "there is no job 'nothing'")


async def refused_from_afar(place: JobsPlace) -> int:
    body = orjson.dumps({"kind": "profile", "model": "mlp"})
    return (await place.door.ask("POST", "/admin/v1/jobs", body, is_local=False)).status


async def test_the_desk_ends_itself_when_its_controller_is_gone(tmp_path: Path) -> None:
    from actors.jobs.desk import JobDesk
    from tests.actors.jobs.places import LocalHands

    hands = LocalHands(tmp_path, is_controller_there=False)
    desk = JobDesk("test", hands, look_s=0.01)
    await desk.watching

    assert hands.has_left


async def test_a_job_is_of_the_version_that_is_served_and_not_of_the_newest_in_the_store(
    tmp_path: Path,
) -> None:
    async with jobs_door(tmp_path) as place, httpx.AsyncClient(base_url=place.url) as client:
        newer = place.store.root / "mlp" / "2"
        shutil.copytree(place.store.folder("mlp"), newer)
        card = newer / "model.yaml"
        card.write_text(card.read_text().replace("version: '1'", "version: '2'"))
        assert place.store.card("mlp").version == "2"
        (newer / place.store.card("mlp").artefact).write_bytes(b"no network")

        asked = [
            await client.post(
                "/admin/v1/jobs", json={"kind": "profile", "model": model, "num_calls": 1}
            )
            for model in ("mlp", "mlp/1", "mlp/2")
        ]
        done = [await ended(client, each.json()["id"]) for each in asked[:2]]

        assert [each.status_code for each in asked] == [202, 202, 404]
        assert [each["state"] for each in done] == ["succeeded"] * 2, done
