from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.model_card import (
    ClassifyPostprocess,
    ImagePreprocess,
    ModelCard,
    SignatureCard,
    TensorCard,
)
from cluster.config.store import ModelStore, default_root, new_folder, new_version, seal, sha256_of
from cluster.errors import ConfigError


def card(name: str = "digits", version: str = "1", artefact: str = "model.onnx") -> ModelCard:
    return ModelCard(
        name=name,
        version=version,
        format="onnx",
        artefact=artefact,
        signature=SignatureCard(
            inputs=[TensorCard(name="x", datatype="FP32", shape=[-1, 4])],
            outputs=[TensorCard(name="y", datatype="FP32", shape=[-1, 2])],
        ),
    )


def put(root: Path, model: ModelCard, content: bytes = b"weights") -> ModelCard:
    with new_version(root, model.name, model.version) as folder:
        (folder / "model.onnx").write_bytes(content)
        return seal(folder, model)


def test_card_of_the_greatest_version_when_none_is_named(tmp_path: Path) -> None:
    for version in ("2", "10", "9"):
        put(tmp_path, card(version=version))
    store = ModelStore(tmp_path)
    assert store.card("digits").version == "10"
    assert store.card("digits", "9").version == "9"
    assert store.folder("digits") == tmp_path / "digits" / "10"
    assert [c.version for c in store.list()] == ["2", "9", "10"]


def test_card_comes_back_as_it_was_sealed(tmp_path: Path) -> None:
    with_processing = card().model_copy(
        update={
            "preprocess": ImagePreprocess(input="x", size=224),
            "postprocess": ClassifyPostprocess(input="y"),
        }
    )
    sealed = put(tmp_path, with_processing)
    assert ModelStore(tmp_path).card("digits") == sealed
    assert sealed.sha256 == sha256_of(tmp_path / "digits" / "1" / "model.onnx")


def test_unknown_model_names_the_place_what_is_there_and_the_remedy(tmp_path: Path) -> None:
    put(tmp_path, card())
    with pytest.raises(ConfigError) as caught:
        ModelStore(tmp_path).card("letters")
    message = caught.value.message
    assert "'letters'" in message
    assert str(tmp_path) in message
    assert "there: digits" in message
    assert "squadron models fetch" in message


def test_unknown_version_names_those_that_are_there(tmp_path: Path) -> None:
    put(tmp_path, card(version="3"))
    with pytest.raises(ConfigError, match=r"no version 4 of model 'digits'.*there: 3"):
        ModelStore(tmp_path).folder("digits", "4")


def test_name_cannot_leave_the_store(tmp_path: Path) -> None:
    put(tmp_path / "outside", card())
    store = ModelStore(tmp_path / "store")
    for name in ("../outside/digits", "..", "", ".archives"):
        with pytest.raises(ConfigError, match="no model"):
            store.card(name)


def test_store_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert ModelStore(tmp_path / "absent").list() == ()


def test_verify_accepts_what_was_written_and_refuses_a_changed_artefact(tmp_path: Path) -> None:
    put(tmp_path, card())
    store = ModelStore(tmp_path)
    before = store.verify("digits").sha256
    artefact = tmp_path / "digits" / "1" / "model.onnx"
    artefact.write_bytes(b"tampered")
    with pytest.raises(ConfigError) as caught:
        store.verify("digits")
    assert str(artefact) in caught.value.message
    assert before in caught.value.message
    assert sha256_of(artefact) in caught.value.message


def test_verify_says_when_the_artefact_is_gone(tmp_path: Path) -> None:
    put(tmp_path, card())
    (tmp_path / "digits" / "1" / "model.onnx").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        ModelStore(tmp_path).verify("digits")


def test_card_in_the_wrong_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, card())
    (tmp_path / "digits").rename(tmp_path / "letters")
    with pytest.raises(ConfigError, match="its folder says letters"):
        ModelStore(tmp_path).card("letters")


def test_version_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def export() -> None:
        with new_version(tmp_path, "m", "1") as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise RuntimeError("export broke")

    with pytest.raises(RuntimeError, match="export broke"):
        export()
    assert ModelStore(tmp_path).list() == ()
    assert list((tmp_path / "m").iterdir()) == []


def test_version_is_invisible_until_it_is_whole(tmp_path: Path) -> None:
    with new_version(tmp_path, "digits", "1") as folder:
        (folder / "model.onnx").write_bytes(b"weights")
        seal(folder, card())
        assert ModelStore(tmp_path).list() == ()
    assert [c.name for c in ModelStore(tmp_path).list()] == ["digits"]


def test_two_writers_of_one_folder_keep_the_first(tmp_path: Path) -> None:
    target = tmp_path / "sample"

    def write_twice() -> None:
        with new_folder(target) as second:
            (second / "file").write_text("second")
            with new_folder(target) as first:
                (first / "file").write_text("first")

    with pytest.raises(ConfigError, match="exists already"):
        write_twice()
    assert (target / "file").read_text() == "first"


def test_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQUADRON_MODEL_STORE", raising=False)
    assert default_root() == Path("models")
    monkeypatch.setenv("SQUADRON_MODEL_STORE", "/data/store")
    assert default_root() == Path("/data/store")
