from __future__ import annotations

import pytest

from actors.sharding.devices import backend_of, own_device


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


@pytest.mark.parametrize(
    ("devices", "nodes", "wanted"),
    [
        (["cuda:0", "cuda:1"], ["a", "a"], "nccl"),
        (["cuda:0", "cuda:0"], ["a", "b"], "nccl"),
        (["cuda:0", "cuda:0"], ["a", "a"], "gloo"),
        (["cuda:0", "cpu"], ["a", "a"], "gloo"),
    ],
)
def test_nccl_needs_a_gpu_for_every_process(
    devices: list[str], nodes: list[str], wanted: str
) -> None:
    assert backend_of(devices, nodes) == wanted
