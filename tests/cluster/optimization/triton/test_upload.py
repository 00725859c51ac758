from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from cluster.config.store import ModelStore
from cluster.errors import InvalidRequest
from cluster.optimization.triton.upload import (
    Uploaded,
    check_graph,
    remove_uploads,
    store_upload,
)
from cluster.protocols.triton.uploads import UploadedFile
from tests.triton_repository import write_scaler


def graph(*nodes: onnx.NodeProto, constants: list[onnx.TensorProto] | None = None) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    made = helper.make_graph(list(nodes), "g", [x], [y], initializer=constants or [])
    content: bytes = helper.make_model(made).SerializeToString()
    return content


def elsewhere(name: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def stored(tmp_path: Path, content: bytes, config: str = "{}", version: int = 1) -> Uploaded:
    file = UploadedFile(version=version, name="model.onnx", content=content)
    return store_upload("m", config, (file,), tmp_path / "store")


def test_a_graph_becomes_a_model_of_a_store_of_its_own(tmp_path: Path) -> None:
    content = write_scaler(tmp_path / "m.onnx", factor=2.0).read_bytes()

    found = stored(tmp_path, content, '{"max_batch_size": "16"}', version=3)

    assert Path(found.store).parent == tmp_path / "store/.uploads"
    card = ModelStore(Path(found.store)).verify("m")
    assert (card.version, card.format, card.batched) == ("3", "onnx", True)
    assert (found.variant.source, found.variant.batching.max_batch_size) == ("m/3", 16)
    assert ModelStore(tmp_path / "store").list() == ()


def test_the_same_files_are_stored_once(tmp_path: Path) -> None:
    content = write_scaler(tmp_path / "m.onnx", factor=2.0).read_bytes()

    assert stored(tmp_path, content) == stored(tmp_path, content)


def test_what_nothing_serves_any_more_is_removed_and_only_that(tmp_path: Path) -> None:
    content = write_scaler(tmp_path / "m.onnx", factor=2.0).read_bytes()
    first, second = stored(tmp_path, content), stored(tmp_path, content, version=2)
    other = tmp_path / "store/.uploads/m-x-0123456789abcdef"
    other.mkdir()

    remove_uploads(tmp_path / "store", "m", {second.store})

    assert not Path(first.store).exists()
    assert Path(second.store).exists()
    assert other.exists()


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
def test_weights_in_other_files_are_found_wherever_they_are_named(where: str) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere("w"))
    inner = helper.make_graph(
        [constant], "i", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [3])]
    )
    content = {
        "initializer": lambda: graph(
            helper.make_node("Mul", ["x", "w"], ["y"]), constants=[elsewhere("w")]
        ),
        "attribute": lambda: graph(constant, helper.make_node("Mul", ["x", "w"], ["y"])),
        "subgraph": lambda: graph(
            helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        ),
    }[where]()

    with pytest.raises(InvalidRequest, match="weights in other files are not taken"):
        check_graph(content, "m.onnx")


def test_operators_that_need_a_library_or_read_files_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="'mine' need a library, which is never loaded"):
        check_graph(graph(helper.make_node("Evil", ["x"], ["y"], domain="mine")), "m.onnx")
    context = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(InvalidRequest, match="EPContext reads other files"):
        check_graph(graph(context), "m.onnx")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"PK\x03\x04", b"import os"])
def test_what_is_no_graph_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="is no ONNX model"):
        check_graph(content, "m.onnx")


def test_files_need_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="'config' must be specified"):
        stored(tmp_path, b"", config="")


def test_another_backend_is_not_taken_from_a_caller(tmp_path: Path) -> None:
    content = write_scaler(tmp_path / "m.onnx", factor=2.0).read_bytes()

    for config in ('{"backend": "python"}', '{"platform": "pytorch_libtorch"}'):
        with pytest.raises(InvalidRequest, match=r"backend|platform"):
            stored(tmp_path, content, config)


def test_an_error_does_not_say_where_the_server_keeps_its_files(tmp_path: Path) -> None:
    content = graph(helper.make_node("NoSuchOperator", ["x"], ["y"]))

    with pytest.raises(InvalidRequest) as caught:
        stored(tmp_path, content)

    assert str(tmp_path) not in caught.value.message
