from __future__ import annotations

import pytest

from actors.sharding.devices import own_device


@pytest.mark.parametrize(
    ("device", "shown", "wanted"),
    [
        ("cuda:3", {"CUDA_VISIBLE_DEVICES": "3"}, "cuda:0"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "0,1"}, "cuda:1"),
        ("cuda:1", {}, "cuda:1"),
        ("cpu", {"CUDA_VISIBLE_DEVICES": "3"}, "cpu"),
    ],
)
def test_the_only_gpu_that_is_shown_is_number_0(
    device: str, shown: dict[str, str], wanted: str
) -> None:
    assert own_device(device, shown) == wanted
