"""What a device setting means, before anyone asks what this machine has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cluster.errors import ConfigError

DeviceKind = Literal["auto", "cpu", "cuda", "mps", "coreml", "directml"]
DEVICE_KINDS: tuple[DeviceKind, ...] = get_args(DeviceKind)

_UNSUPPORTED = {
    "tpu": "no engine here drives a TPU: it needs JAX or PyTorch/XLA on a TPU host",
    "fpga": "no engine here drives an FPGA: it needs the vendor's own compiler and runtime",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """`index` chooses among several GPUs; None is the first."""

    kind: DeviceKind
    index: int | None = None

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind}:{self.index}"


def parse_device(text: str) -> Device:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `coreml`, `directml`, `directml:1`.

    Raises: ConfigError with the reason, for a TPU and an FPGA too.
    """
    name, colon, number = text.strip().lower().partition(":")
    allowed = ", ".join((*DEVICE_KINDS, "cuda:N"))
    if name in _UNSUPPORTED:
        raise ConfigError(
            f"device {text!r}: {_UNSUPPORTED[name]}; allowed: {allowed}",
            key="device",
            value=text,
            allowed=allowed,
        )
    for kind in DEVICE_KINDS:
        if name != kind:
            continue
        if not colon:
            return Device(kind=kind)
        if kind in ("cuda", "directml") and number.isascii() and number.isdigit():
            return Device(kind=kind, index=int(number))
    raise ConfigError(
        f"device {text!r} is not known; allowed: {allowed}",
        key="device",
        value=text,
        allowed=allowed,
    )
