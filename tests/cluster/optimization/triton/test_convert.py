from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from cluster.config.serve_file import read_serve_file
from cluster.config.store import ModelStore
from cluster.engines.engine import EngineSetup
from cluster.engines.table import make_engine
from cluster.errors import ConfigError
from cluster.optimization.triton.convert import (
    ImportReport,
    import_repository,
    write_serve_file,
)
from tests.triton_repository import (
    SUMS,
    write_model,
    write_openvino_model,
    write_repository,
    write_scaler,
    write_sequence_model,
    write_sums,
)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def imported(root: Path, store: ModelStore) -> ImportReport:
    return import_repository(root, store)


def told(report: ImportReport, model: str) -> list[tuple[str, str]]:
    return [(each.field, each.outcome) for each in report.findings if each.model == model]


def with_scaler(root: Path, text: str) -> Path:
    write_scaler(root / "m/1/model.onnx", factor=2.0)
    (root / "m/config.pbtxt").write_text(text)
    return root


TENSORS = """
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
"""


def test_a_whole_repository_becomes_a_store_and_a_file_that_loads(
    tmp_path: Path, store: ModelStore
) -> None:
    report = imported(write_repository(tmp_path / "triton"), store)
    write_serve_file(report, tmp_path / "triton", tmp_path / "out/mine.yaml")
    _, config = read_serve_file(tmp_path / "out/mine.yaml")

    assert set(config.variants) == {"simple", "scaler", "scaler-v1", "picker", "bare"}
    assert [(c.name, c.version) for c in store.list()] == [
        ("bare", "1"), ("picker", "1"), ("scaler", "1"), ("scaler", "2"), ("simple", "1"),
    ]  # fmt: skip
    assert told(report, "scaler") == []
    older = {name: each.version_of for name, each in config.variants.items() if each.version_of}
    assert older == {"scaler-v1": "scaler"}
    assert report.lost() == ()


@pytest.mark.parametrize("written", [b"max_bach_size: 8", b"\xff\xfe", b"input [ {"])
def test_one_configuration_that_cannot_be_read_leaves_the_others(
    tmp_path: Path, store: ModelStore, written: bytes
) -> None:
    root = write_repository(tmp_path / "triton")
    (root / "scaler/config.pbtxt").write_bytes(written)

    report = imported(root, store)

    assert {"simple", "picker"} <= set(report.variants)
    assert "scaler" not in report.variants
    assert ("config.pbtxt", "refused") in told(report, "scaler")
    assert [each for each in report.lost() if each.model == "scaler"]


def test_batching_priorities_and_instances_are_carried_over(
    tmp_path: Path, store: ModelStore
) -> None:
    report = imported(write_repository(tmp_path / "triton"), store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")
    simple = read_serve_file(tmp_path / "mine.yaml")[1].variants["simple"]

    assert (simple.source, simple.replicas, simple.device) == ("simple/1", 2, "cpu")
    batching = simple.batching
    assert (batching.mode, batching.max_batch_size) == ("fixed", 8)
    assert (batching.preferred_batch_sizes, batching.max_queue_delay_us) == ((4, 8), 500)
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    assert batching.queue_policy.max_queue_size == 64
    first = batching.priority_queue_policy[1]
    assert (first.timeout_action, first.default_timeout_us) == ("delay", 2_000_000)


def test_without_a_batcher_requests_run_one_by_one_with_the_same_largest_batch(
    tmp_path: Path, store: ModelStore
) -> None:
    report = imported(write_repository(tmp_path / "triton"), store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")
    picker = read_serve_file(tmp_path / "mine.yaml")[1].variants["picker"]

    assert (picker.batching.mode, picker.batching.max_batch_size) == ("off", 4)
    assert picker.options == {"graph_optimization": "extended"}


def test_a_label_file_comes_with_its_output(tmp_path: Path, store: ModelStore) -> None:
    imported(write_repository(tmp_path / "triton"), store)

    assert store.card("picker").signature.outputs[0].labels == "colours.txt"
    assert (store.folder("picker") / "colours.txt").read_text().split() == ["red", "green", "blue"]


def test_a_label_file_outside_the_model_is_refused(tmp_path: Path, store: ModelStore) -> None:
    root = write_repository(tmp_path / "triton")
    config = root / "picker/config.pbtxt"
    config.write_text(config.read_text().replace("colours.txt", "../../secret.txt"))

    report = imported(root, store)

    (output,) = [field for field, _ in told(report, "picker") if field.endswith("label_filename")]
    assert (output, "refused") in told(report, "picker")
    assert ("ensemble_scheduling.step[1].model_name", "refused") in told(report, "pipeline")


def test_a_folder_without_configuration_is_completed_from_its_graph(
    tmp_path: Path, store: ModelStore
) -> None:
    write_scaler(tmp_path / "triton/bare/1/model.onnx", factor=10.0)

    report = imported(tmp_path / "triton", store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")

    batching = read_serve_file(tmp_path / "mine.yaml")[1].variants["bare"].batching
    assert (batching.mode, batching.max_batch_size) == ("fixed", 4)
    assert store.card("bare").signature.inputs[0].shape == [-1, 3]


def test_a_max_batch_size_of_0_that_is_written_stays(tmp_path: Path, store: ModelStore) -> None:
    root = with_scaler(tmp_path / "triton", 'backend: "onnxruntime"\nmax_batch_size: 0\n')

    imported(root, store)

    assert store.card("m").batched is False


def test_an_ensemble_keeps_its_maps(tmp_path: Path, store: ModelStore) -> None:
    report = imported(write_repository(tmp_path / "triton"), store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")
    pipeline = read_serve_file(tmp_path / "mine.yaml")[1].ensembles["pipeline"]

    assert pipeline.model_dump(exclude_unset=True)["steps"] == (
        {"model": "scaler", "inputs": {"x": "raw"}, "outputs": {"y": "scaled"}},
        {"model": "picker", "inputs": {"x": "scaled"}, "outputs": {"scores": "picked"}},
    )


def test_a_step_that_names_a_version_calls_that_version(tmp_path: Path, store: ModelStore) -> None:
    root = write_repository(tmp_path / "triton")
    config = root / "pipeline/config.pbtxt"
    config.write_text(config.read_text().replace("model_version: -1", "model_version: 1"))

    report = imported(root, store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")

    steps = read_serve_file(tmp_path / "mine.yaml")[1].ensembles["pipeline"].model_dump()["steps"]
    assert [step["model"] for step in steps] == ["scaler-v1", "picker"]


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        ("latest { num_versions: 1 }", {"m"}),
        ("latest { num_versions: 2 }", {"m", "m-v2"}),
        ("specific { versions: [ 1 ] }", {"m"}),
        ("all {}", {"m", "m-v1", "m-v2"}),
    ],
)
def test_the_version_policy_decides_what_is_served(
    tmp_path: Path, store: ModelStore, policy: str, names: set[str]
) -> None:
    for version in (1, 2, 3):
        write_scaler(tmp_path / f"triton/m/{version}/model.onnx", factor=2.0)
    text = f'backend: "onnxruntime"\nversion_policy {{ {policy} }}\n{TENSORS}'
    (tmp_path / "triton/m/config.pbtxt").write_text(text)

    assert set(imported(tmp_path / "triton", store).variants) == names


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ('backend: "python"', "backend", "squadron models add file.py:Class"),
        ('platform: "tensorrt_plan"', "platform", "import the ONNX model"),
        ('backend: "mine"', "backend", "backend 'mine' is no engine of ours"),
        (
            "sequence_batching { iterative_sequence: true }",
            "sequence_batching.iterative_sequence",
            "decoupled",
        ),
        (
            'sequence_batching { state [ { input_name: "a" output_name: "b" data_type: TYPE_INT32 '
            'dims: [ 1 ] initial_state [ { name: "i" data_file: "zeros" } ] } ] }',
            "sequence_batching.state.a.initial_state.data_file",
            "initial:",
        ),
        (
            'sequence_batching { control_input [ { name: "c" control [ { kind: '
            "CONTROL_SEQUENCE_START } ] } ] }",
            "sequence_batching.control_input.c",
            "two values",
        ),
        (
            "model_transaction_policy { decoupled: true }",
            "model_transaction_policy.decoupled",
            "one",
        ),
        (
            'model_operations { op_library_filename: "ops.so" }',
            "model_operations.op_library_filename",
            "custom operators",
        ),
        (
            'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_INT32 '
            'source_input: "x" }',
            "batch_input",
            "allow_ragged_batch",
        ),
        (
            'batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" '
            'source_input: "x" }',
            "batch_output",
            "a row for each item",
        ),
        ("dynamic_batching { preferred_batch_size: [ 9 ] }", "dynamic_batching", "max_batch_size"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_field_and_the_reason(
    tmp_path: Path, store: ModelStore, text: str, field: str, said: str
) -> None:
    backend = "" if "backend" in text or "platform" in text else 'backend: "onnxruntime"\n'
    root = with_scaler(tmp_path / "triton", backend + text + TENSORS)
    write_scaler(root / "good/1/model.onnx", factor=1.0)

    report = imported(root, store)

    (finding,) = [each for each in report.findings if each.outcome == "refused"]
    assert (finding.model, finding.field) == ("m", field)
    assert said in finding.reason
    assert report.variants == ("good",)
    assert not store.versions("m")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (
            'parameters { key: "execution_mode" value { string_value: "1" } }',
            "parameters.execution_mode",
        ),
        ("optimization { cuda { graphs: true } }", "optimization.cuda"),
        ("instance_group [ { rate_limiter { priority: 2 } } ]", "instance_group.rate_limiter"),
        ('metric_tags { key: "a" value: "b" }', "metric_tags"),
    ],
)
def test_what_has_no_effect_here_is_told(
    tmp_path: Path, store: ModelStore, text: str, field: str
) -> None:
    report = imported(
        with_scaler(tmp_path / "triton", f'backend: "onnxruntime"\n{text}{TENSORS}'), store
    )

    assert told(report, "m") == [(field, "dropped")]
    assert [each.field for each in report.lost()] == [field]


def test_a_response_cache_is_carried_over(tmp_path: Path, store: ModelStore) -> None:
    text = f'backend: "onnxruntime"\nresponse_cache {{ enable: true }}{TENSORS}'
    report = imported(with_scaler(tmp_path / "triton", text), store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")

    cached = read_serve_file(tmp_path / "mine.yaml")[1].variants["m"].response_cache
    assert cached.enabled
    assert told(report, "m") == [("response_cache", "changed")]


def test_a_model_of_sequences_keeps_its_controls(tmp_path: Path, store: ModelStore) -> None:
    report = imported(write_sequence_model(tmp_path / "triton"), store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")

    steps = read_serve_file(tmp_path / "mine.yaml")[1].variants["steps"]
    assert report.lost() == ()
    assert (steps.replicas, steps.batching.mode, steps.batching.max_batch_size) == (2, "fixed", 8)
    sequences = steps.sequences
    assert sequences is not None
    assert (sequences.strategy, sequences.max_candidate_sequences) == ("oldest", 64)
    assert (sequences.max_sequence_idle_us, sequences.max_queue_delay_us) == (60_000_000, 1000)
    start = sequences.controls["START"]
    assert (start.kind, start.false_value, start.true_value) == ("start", 0, 10)
    assert sequences.controls["CORRID"].datatype == "UINT64"
    raw = store.card("steps", "1").raw_signature()
    seen = sequences.public(raw, is_batched=True)
    assert [spec.name for spec in raw.inputs] == ["INPUT", "START", "READY", "END", "CORRID"]
    assert [spec.name for spec in seen.inputs] == ["INPUT"]


def test_state_is_the_servers_also_where_the_tensors_are_completed(
    tmp_path: Path, store: ModelStore
) -> None:
    row: list[str | int] = ["batch", 1]
    number = TensorProto.INT32
    write_model(
        tmp_path / "triton/sum/1/model.onnx",
        [
            helper.make_node("Add", ["INPUT", "TOTAL_IN"], ["OUTPUT"]),
            helper.make_node("Identity", ["OUTPUT"], ["TOTAL_OUT"]),
        ],
        [("INPUT", number, row), ("TOTAL_IN", number, row)],
        [("OUTPUT", number, row), ("TOTAL_OUT", number, row)],
    )
    (tmp_path / "triton/sum/config.pbtxt").write_text(
        """
        max_batch_size: 4
        sequence_batching {
          direct { minimum_slot_utilization: 0.1 max_queue_delay_microseconds: 5 }
          state [ {
            input_name: "TOTAL_IN" output_name: "TOTAL_OUT" data_type: TYPE_INT32 dims: [ 1 ]
            initial_state [ { name: "zeros" data_type: TYPE_INT32 dims: [ 1 ] zero_data: true } ]
          } ]
        }"""
    )
    report = imported(tmp_path / "triton", store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")

    sequences = read_serve_file(tmp_path / "mine.yaml")[1].variants["sum"].sequences
    assert report.lost() == ()
    assert sequences is not None
    assert (sequences.strategy, sequences.minimum_slot_utilization) == ("direct", 0.1)
    seen = sequences.public(store.card("sum", "1").raw_signature(), is_batched=True)
    assert [spec.name for spec in (*seen.inputs, *seen.outputs)] == ["INPUT", "OUTPUT"]


def test_every_field_of_the_configuration_is_carried_over_or_told() -> None:
    from cluster.protocols.triton.findings import Findings
    from cluster.protocols.triton.model_config import parse_text
    from cluster.protocols.triton.variant import _CARRIED, variant_section

    fields = {field.name for field in parse_text("", source="").DESCRIPTOR.fields}
    assert fields >= _CARRIED
    findings = Findings(model="m")
    variant_section(
        parse_text('runtime: "x" metric_tags { key: "a" value: "b" }', source=""), findings
    )
    assert {each.field for each in findings.found} == {"runtime", "metric_tags"}


def test_instances_on_gpus_share_them(tmp_path: Path, store: ModelStore) -> None:
    group = "instance_group [ { kind: KIND_GPU count: 2 gpus: [ 0, 1 ] } ]"
    root = with_scaler(tmp_path / "triton", f'backend: "onnxruntime"\n{group}{TENSORS}')

    report = imported(root, store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")

    m = read_serve_file(tmp_path / "mine.yaml")[1].variants["m"]
    assert (m.device, m.replicas, m.resources.num_gpus) == ("cuda", 4, 0.5)


def test_a_torchscript_model_takes_its_inputs_in_the_order_of_their_numbers(
    tmp_path: Path, store: ModelStore
) -> None:
    class Sub(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a - b

    folder = tmp_path / "triton/sub/1"
    folder.mkdir(parents=True)
    with pytest.warns(DeprecationWarning, match="script"):
        torch.jit.script(Sub()).save(str(folder / "model.pt"))
    (folder.parent / "config.pbtxt").write_text(
        """
        platform: "pytorch_libtorch"
        max_batch_size: 2
        input [ { name: "INPUT__1" data_type: TYPE_FP32 dims: [ 2 ] },
                { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 2 ] } ]
        output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 2 ] } ]
        """
    )

    imported(tmp_path / "triton", store)

    card = store.card("sub")
    assert (card.format, card.artefact) == ("torchscript", "model.pt")
    assert [each.name for each in card.signature.inputs] == ["INPUT__0", "INPUT__1"]


def test_an_openvino_model_comes_with_its_weights_and_its_settings(
    tmp_path: Path, store: ModelStore
) -> None:
    text = """
        backend: "openvino"
        parameters { key: "INFERENCE_NUM_THREADS" value { string_value: "2" } }
        parameters { key: "INFERENCE_PRECISION_HINT" value { string_value: "BF16" } }
        parameters { key: "NUM_STREAMS" value { string_value: "4" } }
    """
    report = imported(write_openvino_model(tmp_path / "triton", text + TENSORS), store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")
    variant = read_serve_file(tmp_path / "mine.yaml")[1].variants["intel"]

    card, folder = store.card("intel", "1"), store.folder("intel", "1")
    assert (card.format, card.artefact, card.batched) == ("openvino", "model.xml", True)
    assert {each.name for each in folder.iterdir()} >= {"model.xml", "model.bin"}
    assert (variant.threads, variant.options) == (2, {"precision": "bf16"})
    assert told(report, "intel") == [("parameters.NUM_STREAMS", "dropped")]

    engine = make_engine("openvino", EngineSetup(card=card, folder=folder))
    engine.load()
    x = np.array([[1, 2, 4]], np.float32)
    np.testing.assert_array_equal(engine.infer({"x": x})["y"], 3 * x)
    engine.close()


def test_an_openvino_model_without_a_configuration_is_completed_from_its_graph(
    tmp_path: Path, store: ModelStore
) -> None:
    report = imported(write_openvino_model(tmp_path / "triton"), store)

    card = store.card("intel", "1")
    assert report.lost() == ()
    assert [(each.name, each.shape) for each in card.signature.inputs] == [("x", [-1, 3])]
    assert card.batched


@pytest.mark.parametrize(
    ("dims", "said"),
    [("dims: [ 4 ]", "is [-1, 3] in the graph and [-1, 4]"), ("dims: [ -1 ]", "export it with")],
)
def test_sizes_that_an_openvino_graph_does_not_have_refuse_it(
    tmp_path: Path, store: ModelStore, dims: str, said: str
) -> None:
    text = 'backend: "openvino"' + TENSORS.replace("dims: [ 3 ]", dims, 1)
    root = write_openvino_model(tmp_path / "triton", text)
    write_scaler(root / "good/1/model.onnx", factor=1.0)

    (finding,) = imported(root, store).findings

    assert (finding.model, finding.field) == ("intel", "version 1")
    assert said in finding.reason


def test_openvino_weights_that_are_not_there_refuse_the_model(
    tmp_path: Path, store: ModelStore
) -> None:
    root = write_openvino_model(tmp_path / "triton", 'backend: "openvino"' + TENSORS)
    write_scaler(root / "good/1/model.onnx", factor=1.0)
    (root / "intel/1/model.bin").unlink()

    (finding,) = imported(root, store).findings

    assert (finding.model, finding.outcome) == ("intel", "refused")


def test_a_ragged_batch_and_what_describes_it_are_carried_over(
    tmp_path: Path, store: ModelStore
) -> None:
    write_sums(tmp_path / "triton/sums/1/model.onnx")
    (tmp_path / "triton/sums/config.pbtxt").write_text(SUMS)
    report = imported(tmp_path / "triton", store)
    write_serve_file(report, tmp_path, tmp_path / "mine.yaml")
    ragged = read_serve_file(tmp_path / "mine.yaml")[1].variants["sums"].batching.ragged

    assert report.findings == ()
    assert ragged is not None
    assert ragged.model_dump() == {
        "inputs": ("x",),
        "batch_inputs": {
            "ends": {"kind": "accumulated_element_count_with_zero", "source": "x"},
        },
    }
    card = store.card("sums", "1")
    assert not card.batched
    assert [(each.name, each.shape) for each in card.signature.inputs] == [
        ("x", [-1]), ("ends", [-1]),
    ]  # fmt: skip


def test_a_tensor_that_the_graph_has_not_refuses_the_model(
    tmp_path: Path, store: ModelStore
) -> None:
    root = with_scaler(
        tmp_path / "triton", f'backend: "onnxruntime"{TENSORS}'.replace('"y"', '"z"')
    )

    with pytest.raises(ConfigError, match=r"nothing in it can be served.*no output 'z'"):
        imported(root, store)


def test_a_configuration_that_cannot_be_read_names_file_and_line(
    tmp_path: Path, store: ModelStore
) -> None:
    root = with_scaler(tmp_path / "triton", "max_batch_size: 8\nmax_bach_size: 8\n")

    with pytest.raises(ConfigError, match=r"m/config\.pbtxt: .*: 2:1 .*max_bach_size"):
        imported(root, store)


def test_importing_twice_changes_nothing_and_another_content_is_an_error(
    tmp_path: Path, store: ModelStore
) -> None:
    root = with_scaler(tmp_path / "triton", f'backend: "onnxruntime"{TENSORS}')
    assert [each.is_new for each in imported(root, store).stored] == [True]

    assert [each.is_new for each in imported(root, store).stored] == [False]

    write_scaler(root / "m/1/model.onnx", factor=3.0)
    with pytest.raises(ConfigError, match="another m version 1 is in the store"):
        imported(root, store)


def test_external_weights_come_along(tmp_path: Path, store: ModelStore) -> None:
    import onnx

    file = tmp_path / "triton/big/1/model.onnx"
    weights = helper.make_tensor("w", TensorProto.FLOAT, [512], bytes(2048), raw=True)
    row: list[str | int] = ["batch", 512]
    write_model(
        file,
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, row)],
        [("y", TensorProto.FLOAT, row)],
        [weights],
    )
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="w.bin", size_threshold=0)

    imported(tmp_path / "triton", store)

    assert (store.folder("big") / "w.bin").stat().st_size == 2048
