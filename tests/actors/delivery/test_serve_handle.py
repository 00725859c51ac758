"""Serve's handle at a door, with a Python function in the place of Serve."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from actors.delivery.serve_handle import ServeHandle
from cluster.errors import NoReadyReplica


class Serve:
    """Knows `deployments`, as its controller does; `finds` says in which threads it was asked."""

    def __init__(self, *deployments: str) -> None:
        self.deployments = {*deployments}
        self.finds: list[int] = []
        self.options_given: list[dict[str, Any]] = []

    def find(self, deployment: str, app: str) -> Serve:
        self.finds.append(threading.get_ident())
        if f"{app}/{deployment}" not in self.deployments:
            raise KeyError(f"Deployment(name='{deployment}', app='{app}') does not exist.")
        return self

    def options(self, **options: Any) -> Serve:
        self.options_given.append(options)
        return self


async def test_a_handle_is_found_once_at_its_first_use_and_off_the_loop() -> None:
    serve = Serve("a/m")
    handle = ServeHandle("m", "a", find=serve.find, method_name="infer")

    assert serve.finds == []
    found = await asyncio.gather(*(handle.get() for _ in range(8)))

    assert found == [serve] * 8
    assert len(serve.finds) == 1
    assert serve.finds[0] != threading.get_ident()
    assert serve.options_given == [{"method_name": "infer"}]


async def test_a_deployment_that_is_not_there_yet_is_not_ready_and_asked_for_again() -> None:
    serve = Serve()
    handle = ServeHandle("m", "a", find=serve.find)

    with pytest.raises(NoReadyReplica) as refused:
        await handle.get()
    serve.deployments.add("a/m")

    assert (refused.value.http_status, refused.value.retry_after_s) == (503, 1)
    assert await handle.get() is serve
