"""Shared memory: what a registration may say, and where in a region a tensor lies.

A region is a part of a shared-memory object; a slice is a part of a region. All sizes and offsets
are bytes. The texts are Triton's where its clients and tests look at them.
Source: protocol sections 4.3, 4.4, 5.4 and 5.10.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import NoReturn, Protocol

from cluster.config.server import SharedMemoryConfig
from cluster.errors import Forbidden, InvalidRequest, Unsupported
from cluster.protocols.v2_binary import array_from_bytes
from cluster.protocols.v2_fields import MAX_NAME_LENGTH, shown, uint_parameter
from cluster.requests import Parameter, RegionSlice, RequestedOutput
from cluster.tensors import NUMPY_DTYPES, Array, Datatype

RESERVED_PREFIX = "/triton_python_backend_shm_region_"
MAX_KEY_LENGTH = 255
"""Bytes of a file's name."""

HANDLE_BYTES = 64
"""Bytes of a CUDA IPC handle (`CUDA_IPC_HANDLE_SIZE`)."""

DISABLED_TEXT = (
    "Client shared memory is disabled. It is switched on by 'server.shared_memory.enabled' in the "
    "server's configuration"
)


class Regions(Protocol):
    """The registered regions, as one caller may use them."""

    def read(self, place: RegionSlice) -> bytes: ...

    def check(self, place: RegionSlice) -> None:
        """Whether the slice is there: an answer could be written to it."""


class InputRegions(Protocol):
    """The same for one request, whose inputs may be there."""

    def read_input(self, model: str, version: str, name: str, place: RegionSlice) -> bytes:
        """What input `name` holds. Nothing is read for an input that the model does not take."""
        ...

    def check(self, place: RegionSlice) -> None:
        """See `Regions.check`."""


class Places(Protocol):
    """Where the outputs of one request go."""

    def write(self, place: RegionSlice, data: bytes | memoryview) -> None: ...


class RefusedRegions:
    """No region at all, with the reason."""

    def __init__(self, refusal: type[Unsupported | Forbidden], text: str) -> None:
        self._refusal = refusal
        self._text = text

    def read(self, place: RegionSlice) -> bytes:
        self._refuse(place)

    def read_input(self, model: str, version: str, name: str, place: RegionSlice) -> bytes:
        self._refuse(place)

    def check(self, place: RegionSlice) -> None:
        self._refuse(place)

    def write(self, place: RegionSlice, data: bytes | memoryview) -> None:
        self._refuse(place)

    def _refuse(self, place: RegionSlice) -> NoReturn:
        raise self._refusal(f"{self._text}: the request refers to region '{place.region[:256]}'")


DISABLED = RefusedRegions(Unsupported, DISABLED_TEXT)
REMOTE = RefusedRegions(
    Forbidden, "shared memory is for programs on the server's own machine that reach it by loopback"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a caller asks to register: `byte_size` bytes at `offset` of the object `key`."""

    name: str
    key: str
    offset: int
    byte_size: int

    @property
    def file_name(self) -> str:
        """The object's name without its leading slash."""
        return self.key.lstrip("/")


def registration(
    name: str, key: object, offset: object, byte_size: object, config: SharedMemoryConfig
) -> Registration:
    """A registration that may be tried. Raises: InvalidRequest, Forbidden."""
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise InvalidRequest(
            f"the name of a shared memory region must have 1 to {MAX_NAME_LENGTH} characters, got "
            f"{len(name)}"
        )
    found = Registration(
        name=name,
        key=_checked_key(name, key, config.prefixes),
        offset=_size_field(name, "offset", offset, 0),
        byte_size=_size_field(name, "byte_size", byte_size, 1),
    )
    if found.byte_size > config.max_region_bytes:
        _refuse(name, f"byte_size must be at most {config.max_region_bytes}, got {byte_size}")
    return found


def _checked_key(name: str, key: object, prefixes: tuple[str, ...]) -> str:
    if type(key) is not str:
        _refuse(name, f"'key' must be a string, got {shown(key)}")
    bare = key.lstrip("/")
    if bare in ("", ".", "..") or "/" in bare or "\0" in bare:
        _refuse(name, f"{key[:80]!r} is no key of a shared memory object")
    if len(bare.encode("utf-8", "surrogatepass")) > MAX_KEY_LENGTH:
        _refuse(name, f"the key has more than {MAX_KEY_LENGTH} bytes")
    whole = f"/{bare}"
    if whole.startswith(RESERVED_PREFIX):
        _refuse(name, f"keys that begin with {RESERVED_PREFIX!r} are reserved")
    if not whole.startswith(prefixes):
        raise Forbidden(
            f"failed to register shared memory region '{name}': key '{whole}' does not begin with "
            f"an allowed prefix (server.shared_memory.prefixes: {', '.join(prefixes)})"
        )
    return whole


def _size_field(name: str, field: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value < 2**64:
        _refuse(name, f"'{field}' must be a whole number >= {least}, got {shown(value)}")
    return value


def raw_handle(value: object) -> bytes:
    """The CUDA IPC handle in `{"b64": text}`. Raises: InvalidRequest."""
    text = value.get("b64") if isinstance(value, dict) else None
    if type(text) is not str:
        raise InvalidRequest("'raw_handle' must be an object with the handle in 'b64' as base64")
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise InvalidRequest("'raw_handle' is not base64") from None


def cuda_sizes(name: str, device_id: object, byte_size: object) -> tuple[int, int]:
    """Device and size as numbers. Raises: InvalidRequest."""
    device = _size_field(name, "device_id", device_id, 0)
    return device, _size_field(name, "byte_size", byte_size, 1)


def check_object_size(asked: Registration, object_bytes: int) -> None:
    """Whether the region lies within its object. Raises: InvalidRequest."""
    if asked.offset + asked.byte_size > object_bytes:
        _refuse(
            asked.name,
            f"offset {asked.offset} + byte_size {asked.byte_size} go beyond the object's "
            f"{object_bytes} bytes",
        )


def _refuse(name: str, why: str) -> NoReturn:
    raise InvalidRequest(
        f"failed to register shared memory region '{name[:256]}': invalid args: {why}"
    )


def check_within(place: RegionSlice, region_bytes: int) -> None:
    """Whether a slice lies within its region. Raises: InvalidRequest."""
    if place.offset >= region_bytes:
        raise InvalidRequest(f"Invalid offset for shared memory region: '{place.region}'")
    if place.offset + place.byte_size > region_bytes:
        raise InvalidRequest(
            f"Invalid offset + byte size for shared memory region: '{place.region}': offset "
            f"{place.offset} + byte size {place.byte_size} go beyond its {region_bytes} bytes"
        )


def place_of(parameters: Mapping[str, Parameter], what: str) -> RegionSlice | None:
    """Where in shared memory a tensor lies; None when its parameters say nothing of it.

    Raises: InvalidRequest.
    """
    region = parameters.get("shared_memory_region")
    if region is None:
        for key in ("shared_memory_byte_size", "shared_memory_offset"):
            if key in parameters:
                raise InvalidRequest(
                    f"'{key}' can not be specified without 'shared_memory_region' parameter for "
                    f"{what}"
                )
        return None
    if type(region) is not str or not 0 < len(region) <= MAX_NAME_LENGTH:
        raise InvalidRequest(
            f"'shared_memory_region' of {what} must be a string of 1 to {MAX_NAME_LENGTH} "
            f"characters, got {shown(region)}"
        )
    byte_size = uint_parameter(parameters, "shared_memory_byte_size", what)
    if byte_size is None:
        raise InvalidRequest(
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' "
            f"parameter for {what}"
        )
    offset = uint_parameter(parameters, "shared_memory_offset", what) or 0
    return RegionSlice(region=region, offset=offset, byte_size=byte_size)


def array_in_region(
    place: RegionSlice,
    datatype: Datatype,
    shape: tuple[int, ...],
    name: str,
    read: Callable[[str, RegionSlice], bytes],
) -> Array:
    """The tensor that lies there; `read` gives the bytes of input `name`. Raises: RequestError."""
    if datatype != "BYTES":
        expected = prod(shape) * NUMPY_DTYPES[datatype].itemsize
        if place.byte_size != expected:
            raise InvalidRequest(
                f"unexpected total byte size {place.byte_size} for input '{name}', expecting "
                f"{expected}"
            )
    return array_from_bytes(read(name, place), datatype, shape, f"input '{name}'")


def check_output(output: RequestedOutput, regions: InputRegions) -> RequestedOutput:
    """The output, which may be in shared memory. Raises: RequestError."""
    if output.place is not None:
        for is_asked, other in ((output.num_classes, "classification"), (output.is_binary, "")):
            if is_asked:
                raise InvalidRequest(
                    f"output '{output.name}' has 'shared_memory_region', which excludes "
                    f"'{other or 'binary_data'}'"
                )
        regions.check(output.place)
    return output


def write_output(
    place: RegionSlice, name: str, data: bytes | memoryview, places: Places
) -> dict[str, Parameter]:
    """Write an output where its caller wants it; the parameters to answer instead of its data.

    Raises: RequestError.
    """
    if len(data) > place.byte_size:
        raise InvalidRequest(
            f"shared memory size specified with the request for output '{name}' "
            f"({place.byte_size} bytes) should be at least {len(data)} bytes to hold the results"
        )
    places.write(place, data)
    found: dict[str, Parameter] = {
        "shared_memory_region": place.region,
        "shared_memory_byte_size": len(data),
    }
    return {**found, "shared_memory_offset": place.offset} if place.offset else found
