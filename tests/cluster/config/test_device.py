from __future__ import annotations

import pytest

from cluster.config.device import DEVICE_KINDS, Device, parse_device
from cluster.errors import ConfigError


@pytest.mark.parametrize("kind", DEVICE_KINDS)
def test_every_kind_is_read_by_its_name(kind: str) -> None:
    assert parse_device(kind.upper()) == Device(kind=kind)  # type: ignore[arg-type]


def test_a_gpu_among_several_is_named_by_its_number() -> None:
    device = parse_device("cuda:1")

    assert device == Device(kind="cuda", index=1)
    assert str(device) == "cuda:1"


@pytest.mark.parametrize("text", ["tpu", "TPU:0", "fpga"])
def test_hardware_that_no_engine_drives_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ConfigError, match="no engine here drives"):
        parse_device(text)


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:-1", "cuda:one", "cuda:²", "cpu:0"])
def test_anything_else_is_refused_naming_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match="allowed: auto, cpu, cuda, mps") as caught:
        parse_device(text)

    assert caught.value.details["value"] == text
