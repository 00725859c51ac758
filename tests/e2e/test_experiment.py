"""The 90/10 experiment: shares, stickiness, and who answered."""

from __future__ import annotations

import math
from collections import Counter

import httpx
import pytest

from cluster.config.store import ModelStore
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models]

FP32, INT8 = "photo-classifier-fp32", "photo-classifier-int8"


def arm(client: httpx.Client, photo: bytes, user: str = "", model: str = "photo-classifier") -> str:
    headers = {"content-type": "image/png"} | ({"x-squadron-user": user} if user else {})
    answer = client.post(f"/v2/models/{model}/infer", content=photo, headers=headers)
    assert answer.status_code == 200, answer.text
    named = answer.json()["parameters"]["squadron_variant"]
    assert answer.headers["x-squadron-variant"] == named
    return str(named)


@pytest.fixture
def photo(store: ModelStore) -> bytes:
    return (store.root / ".samples" / "scikit-image" / "chelsea.png").read_bytes()


def test_traffic_splits_by_weight(prod: Running, photo: bytes) -> None:
    num_requests = 300
    with httpx.Client(base_url=prod.http) as client:
        seen = Counter(arm(client, photo) for _ in range(num_requests))

    error = 4.5 * math.sqrt(0.1 * 0.9 / num_requests)
    assert seen[INT8] / num_requests == pytest.approx(0.1, abs=error)
    assert seen[FP32] + seen[INT8] == num_requests


def test_a_user_always_meets_the_same_arm(prod: Running, photo: bytes) -> None:
    with httpx.Client(base_url=prod.http) as client:
        met = {u: {arm(client, photo, user=f"user-{u}") for _ in range(3)} for u in range(30)}

    assert all(len(arms) == 1 for arms in met.values())
    assert {a for arms in met.values() for a in arms} == {FP32, INT8}


@pytest.mark.parametrize("name", [FP32, INT8])
def test_each_variant_answers_by_its_own_name(prod: Running, photo: bytes, name: str) -> None:
    with httpx.Client(base_url=prod.http) as client:
        assert arm(client, photo, model=name) == name
