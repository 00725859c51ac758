"""Two processes with a share each compute on one GPU, and a third one waits for room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
import torch

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"
    ),
]


@pytest.fixture
def one_gpu() -> Iterator[None]:
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False)
    yield
    ray.shutdown()


@ray.remote
class Computing:
    def where(self) -> tuple[str, float]:
        """The card that it sees, and a sum that was computed there."""
        ones = torch.ones(1024, device="cuda")
        return str(torch.cuda.get_device_properties(0).uuid), float(ones.sum())


@pytest.mark.usefixtures("one_gpu")
def test_shares_of_one_gpu_compute_on_the_same_card() -> None:
    one, other = (Computing.options(num_gpus=share).remote() for share in (0.4, 0.6))  # type: ignore[attr-defined]

    found = ray.get([one.where.remote(), other.where.remote()], timeout=120)

    assert found[0] == found[1]
    assert found[0][1] == 1024.0
    third = Computing.options(num_gpus=0.1).remote()  # type: ignore[attr-defined]
    waiting = third.where.remote()
    assert ray.wait([waiting], timeout=2)[0] == []
    ray.kill(one)
    assert ray.get(waiting, timeout=120)[1] == 1024.0
