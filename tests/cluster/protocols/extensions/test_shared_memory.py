"""Registrations and slices, checked before anything is opened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config.server import SharedMemoryConfig
from cluster.errors import Forbidden, InvalidRequest, Unsupported
from cluster.protocols.extensions.shared_memory import (
    DISABLED,
    REMOTE,
    Registration,
    check_object_size,
    check_output,
    check_within,
    place_of,
    raw_handle,
    registration,
)
from cluster.requests import RegionSlice, RequestedOutput

ALL = SharedMemoryConfig(enabled=True, prefixes=("/",), max_region_bytes=1000)
UINT64 = st.integers(min_value=0, max_value=2**64 - 1)


def test_a_key_is_the_same_with_and_without_its_slash() -> None:
    for key in ("/data", "data"):
        assert registration("r", key, 0, 8, ALL).key == "/data"


@pytest.mark.parametrize(
    "key",
    ["", "/", "///", "/..", "/.", "/a/b", "../etc/passwd", "/a\0b", "/" + "x" * 256, 7, None],
)
def test_what_is_no_key_of_an_object_is_refused(key: object) -> None:
    with pytest.raises(InvalidRequest, match="failed to register shared memory region 'r'"):
        registration("r", key, 0, 8, ALL)


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_the_python_backends_own_keys_are_reserved(slashes: str) -> None:
    with pytest.raises(InvalidRequest, match="reserved"):
        registration("r", f"{slashes}triton_python_backend_shm_region_1", 0, 8, ALL)


def test_a_key_outside_the_allowed_prefixes_is_forbidden() -> None:
    config = SharedMemoryConfig(enabled=True, prefixes=("/mine_", "/ours_"))

    assert registration("r", "/ours_1", 0, 8, config).key == "/ours_1"
    with pytest.raises(Forbidden, match="/mine_, /ours_"):
        registration("r", "/theirs", 0, 8, config)


@pytest.mark.parametrize(
    ("offset", "byte_size"),
    [(-1, 8), (2**64, 8), (0, 0), (0, -1), (0, 1001), (0, 2**64), (0.0, 8), (0, "8"), (True, 8)],
)
def test_sizes_are_whole_numbers_within_the_limits(offset: object, byte_size: object) -> None:
    with pytest.raises(InvalidRequest, match="invalid args"):
        registration("r", "/data", offset, byte_size, ALL)


@given(offset=UINT64, byte_size=UINT64, object_bytes=UINT64)
def test_a_region_lies_within_its_object(offset: int, byte_size: int, object_bytes: int) -> None:
    asked = Registration(name="r", key="/k", offset=offset, byte_size=byte_size)

    if offset <= object_bytes and byte_size <= object_bytes - offset:
        check_object_size(asked, object_bytes)
    else:
        with pytest.raises(InvalidRequest, match=r"failed to register .* invalid args"):
            check_object_size(asked, object_bytes)


@given(offset=UINT64, byte_size=UINT64, region_bytes=st.integers(min_value=1, max_value=2**64 - 1))
def test_a_slice_lies_within_its_region(offset: int, byte_size: int, region_bytes: int) -> None:
    place = RegionSlice(region="r", offset=offset, byte_size=byte_size)

    if offset < region_bytes and byte_size <= region_bytes - offset:
        check_within(place, region_bytes)
    else:
        with pytest.raises(InvalidRequest, match="Invalid offset"):
            check_within(place, region_bytes)


def test_a_tensor_is_in_shared_memory_when_its_parameters_name_a_region() -> None:
    named = {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 4}

    assert place_of(named, "x") == RegionSlice(region="r", offset=4, byte_size=8)
    assert place_of({"binary_data_size": 8}, "x") is None


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"shared_memory_byte_size": 8}, "without 'shared_memory_region'"),
        ({"shared_memory_offset": 8}, "without 'shared_memory_region'"),
        ({"shared_memory_region": "r"}, "must be specified along with"),
        ({"shared_memory_region": 1, "shared_memory_byte_size": 8}, "must be a string"),
        ({"shared_memory_region": "", "shared_memory_byte_size": 8}, "must be a string"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": -1}, "whole number"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 2**64}, "whole number"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 1.5}, "whole number"),
    ],
)
def test_half_a_place_is_refused(parameters: dict[str, str | int | float], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        place_of(parameters, "input 'x'")


@pytest.mark.parametrize("other", [{"num_classes": 2}, {"is_binary": True}])
def test_an_output_in_shared_memory_is_neither_classified_nor_binary(
    other: dict[str, int],
) -> None:
    place = RegionSlice(region="r", offset=0, byte_size=8)
    output = RequestedOutput(name="y", place=place, **other)  # type: ignore[arg-type]

    with pytest.raises(InvalidRequest, match="output 'y' has 'shared_memory_region'"):
        check_output(output, DISABLED)


def test_without_shared_memory_the_refusal_says_how_to_switch_it_on() -> None:
    place = RegionSlice(region="r", offset=0, byte_size=8)

    with pytest.raises(Unsupported, match=r"^Client shared memory is disabled.*region 'r'"):
        DISABLED.read(place)
    with pytest.raises(Forbidden, match="own machine"):
        REMOTE.check(place)


@pytest.mark.parametrize("value", [None, "AAAA", {"b64": 3}, {"b64": "no base64!"}, {}])
def test_a_handle_that_is_not_base64_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="raw_handle"):
        raw_handle(value)
