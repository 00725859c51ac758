"""Every public method of the SDK has a check that fails when its body is `return self`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from cluster.client import AsyncClient, AsyncModel
from tests.cluster.client import probes
from tests.cluster.client.places import Place

KINDS: dict[str, type] = {**probes.KINDS, "async_client": AsyncClient, "async_model": AsyncModel}


def methods(kind: type) -> list[str]:
    return sorted(
        name
        for name, value in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(value)
    )


def probe_of(kind: str, method: str) -> probes.Probe:
    if kind.startswith("async_"):
        made: probes.Probe = getattr(probes, kind)(method)
        return made
    found: probes.Probe = getattr(probes, f"{kind}_{method}")
    return found


EVERY = [(kind, method) for kind, cls in KINDS.items() for method in methods(cls)]


@pytest.mark.parametrize(("kind", "method"), EVERY)
def test_the_method_does_what_it_says(kind: str, method: str, place: Place, tmp_path: Path) -> None:
    probe_of(kind, method)(place, tmp_path)


@pytest.mark.parametrize(("kind", "method"), EVERY)
def test_the_check_fails_when_the_method_does_nothing(
    kind: str, method: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(self: Any, *_: Any, **__: Any) -> Any:
        return self

    async def nothing_soon(self: Any, *_: Any, **__: Any) -> Any:
        return self

    is_async = inspect.iscoroutinefunction(getattr(KINDS[kind], method))
    monkeypatch.setattr(KINDS[kind], method, nothing_soon if is_async else nothing)

    with pytest.raises((AssertionError, pytest.fail.Exception, Exception)):
        probe_of(kind, method)(place, tmp_path)
