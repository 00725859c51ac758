"""What every engine promises, asked of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cluster.engines.engine import Engine, EngineSetup
from cluster.engines.table import ENGINES, make_engine
from cluster.errors import ConfigError, EngineFailed, InvalidRequest
from cluster.models import EngineName
from cluster.tensors import Array, Signature, TensorSpec
from tests.contracts.tiny_models import TINY, sha256_of, with_card

FILES = [kind for kind in TINY if kind not in ("fake", "python")]


@pytest.fixture(params=TINY)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[EngineName, EngineSetup]:
    name, make = TINY[request.param]
    return name, make(tmp_path)


@pytest.fixture
def engine(made: tuple[EngineName, EngineSetup]) -> Iterator[Engine]:
    engine = make_engine(*made)
    engine.load()
    yield engine
    engine.close()


def rows(count: int) -> Array:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4) / 8


def assert_doubles(engine: Engine, x: Array) -> None:
    outputs = engine.infer({"x": x})

    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    np.testing.assert_array_equal(outputs["y"], 2 * x + 1)


def test_every_engine_of_the_table_is_under_contract() -> None:
    # Engines of language models keep another contract: tests/contracts/test_language_engines.py.
    batching = {name for name, entry in ENGINES.items() if set(entry.formats) - {"causal_lm"}}

    absent = {"openvino"} if find_spec("openvino") is None else set()
    absent |= {"tensorrt"} - {name for name, _ in TINY.values()}
    assert {name for name, _ in TINY.values()} == batching - absent


@pytest.mark.parametrize("count", [1, 2, 8, 3])
def test_a_batch_of_any_size_gives_exact_numbers(engine: Engine, count: int) -> None:
    assert_doubles(engine, rows(count))


def test_the_signature_is_the_artefacts_own(engine: Engine) -> None:
    assert engine.signature == Signature(
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
    )


def test_an_engine_tells_what_it_runs_on(
    made: tuple[EngineName, EngineSetup], engine: Engine
) -> None:
    facts = engine.facts

    assert (facts.engine, facts.threads, facts.precision) == (made[0], 1, "fp32")
    assert facts.device in ("auto", "cpu") or facts.device.startswith(("cuda", "mps"))
    assert facts.provider
    assert facts.weight_bytes >= 0


def test_a_warm_engine_answers_as_before(engine: Engine) -> None:
    engine.warm_up((1, 8))

    assert_doubles(engine, rows(2))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"z": rows(1)}, "unexpected input 'z'"),
        ({}, "input 'x' is missing"),
        ({"x": rows(1), "z": rows(1)}, "unexpected input 'z'"),
        ({"x": rows(1).astype(np.float64)}, "expected datatype FP32, got FP64"),
        ({"x": rows(1).astype(np.int32)}, "expected datatype FP32, got INT32"),
        ({"x": np.array([[b"a"] * 4], dtype=object)}, "expected datatype FP32, got BYTES"),
        ({"x": np.zeros((1, 5), np.float32)}, r"expected shape \[-1, 4\], got \[1, 5\]"),
        ({"x": np.zeros(4, np.float32)}, r"expected shape \[-1, 4\], got \[4\]"),
        ({"x": np.zeros((0, 4), np.float32)}, "at least one row"),
        ({"x": np.zeros((1, 4), np.complex64)}, "got complex64"),
    ],
)
def test_what_the_model_does_not_take_is_refused_and_the_next_request_is_answered(
    engine: Engine, inputs: dict[str, Array], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        engine.infer(inputs)

    assert_doubles(engine, rows(2))


def test_arrays_given_are_not_changed_and_arrays_returned_are_the_callers(engine: Engine) -> None:
    x = rows(2)
    kept = x.copy()

    first = engine.infer({"x": x})["y"]
    first[:] = -1

    np.testing.assert_array_equal(x, kept)
    assert_doubles(engine, x)


def test_a_view_on_a_requests_bytes_at_an_odd_address_is_taken(engine: Engine) -> None:
    message = b"\0" + rows(2).tobytes()
    view = np.frombuffer(message, dtype=np.float32, offset=1).reshape(2, 4)
    assert not view.flags.writeable

    assert_doubles(engine, view)


def test_rows_that_do_not_lie_together_in_memory_are_taken(engine: Engine) -> None:
    assert_doubles(engine, rows(8)[::2])
    assert_doubles(engine, np.asfortranarray(rows(8)))


def test_closing_twice_is_fine_and_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    engine.close()

    with pytest.raises(EngineFailed, match="closed"):
        engine.infer({"x": rows(1)})


def test_an_engine_loads_again_after_it_was_closed(engine: Engine) -> None:
    engine.close()
    engine.load()

    assert_doubles(engine, rows(1))


@pytest.mark.parametrize("device", ["tpu", "fpga", "abacus", "cuda:x", "cpu:1"])
def test_a_device_that_nobody_has_is_refused(
    made: tuple[EngineName, EngineSetup], device: str
) -> None:
    name, setup = made
    with pytest.raises(ConfigError, match=device) as caught:
        make_engine(name, replace(setup, device=device)).load()

    assert caught.value.details["key"] == "device"


@pytest.mark.parametrize("kind", ["fake", *FILES])
def test_a_device_that_this_machine_has_not_is_refused_naming_what_it_offers(
    kind: str, tmp_path: Path
) -> None:
    name, make = TINY[kind]
    with pytest.raises(ConfigError, match=r"offers: (cpu|cuda)") as caught:
        make_engine(name, replace(make(tmp_path), device="directml")).load()

    assert caught.value.details["value"] == "directml"


@pytest.mark.parametrize("kind", ["fake", *FILES])
def test_an_unknown_option_is_refused(kind: str, tmp_path: Path) -> None:
    name, make = TINY[kind]
    with pytest.raises(ConfigError, match="no option 'colour'"):
        make_engine(name, replace(make(tmp_path), options={"colour": "red"}))


@pytest.mark.parametrize("kind", FILES)
def test_threads_are_what_was_set(kind: str, tmp_path: Path) -> None:
    name, make = TINY[kind]
    engine = make_engine(name, replace(make(tmp_path), threads=2))
    engine.load()
    threads = engine.facts.threads
    restored = make_engine(name, make(tmp_path))  # torch's setting is the process's
    restored.load()

    assert (threads, restored.facts.threads) == (2, 1)


@pytest.mark.parametrize("kind", FILES)
def test_the_artefact_that_the_card_means_is_loaded(kind: str, tmp_path: Path) -> None:
    name, make = TINY[kind]
    setup = make(tmp_path)
    file = tmp_path / setup.card.artefact
    engine = make_engine(name, with_card(setup, sha256=sha256_of(file).upper()))
    engine.load()

    assert_doubles(engine, rows(1))


@pytest.mark.parametrize("kind", FILES)
def test_a_tampered_artefact_is_refused_naming_file_expected_and_found(
    kind: str, tmp_path: Path
) -> None:
    name, make = TINY[kind]
    setup = make(tmp_path)
    file = tmp_path / setup.card.artefact
    expected = sha256_of(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        make_engine(name, with_card(setup, sha256=expected)).load()

    assert str(file) in caught.value.message
    assert caught.value.details["allowed"] == expected
    assert caught.value.details["value"] == sha256_of(file)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("artefact", ["", "missing.bin", "../outside.bin"])
def test_an_artefact_that_is_not_in_the_folder_is_refused(
    kind: str, artefact: str, tmp_path: Path
) -> None:
    name, make = TINY[kind]
    (tmp_path / "outside.bin").write_bytes(b"secret")
    folder = tmp_path / "model"
    folder.mkdir()
    setup = with_card(make(folder), artefact=artefact)

    with pytest.raises(ConfigError, match=r"artefact|outside"):
        make_engine(name, setup).load()


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_model_is_refused_naming_it(kind: str, tmp_path: Path) -> None:
    name, make = TINY[kind]
    setup = make(tmp_path)
    file = tmp_path / setup.card.artefact
    file.write_bytes(b"this is not a model")

    with pytest.raises(ConfigError, match=file.name):
        make_engine(name, setup).load()


def test_a_card_of_another_format_is_refused(made: tuple[EngineName, EngineSetup]) -> None:
    name, setup = made
    other = "python" if setup.card.format != "python" else "fake"
    with pytest.raises(ConfigError, match="runs format"):
        make_engine(name, with_card(setup, format=other))
