"""Triton's `ModelConfig` of one model as an entry of our `variants:`, with what was lost.

Every field that is set is either carried over, or a finding says what becomes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.config.cache import ResponseCacheConfig
from cluster.config.model_card import Format
from cluster.protocols.triton.batching import batching_section
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.instances import instances_of
from cluster.protocols.triton.sequences import sequences_section

_BACKENDS: dict[str, tuple[Format, str]] = {
    "onnxruntime": ("onnx", "model.onnx"),
    "pytorch": ("torchscript", "model.pt"),
    "openvino": ("openvino", "model.xml"),
}
_BACKEND_OF_PLATFORM = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
}
_BACKEND_OF_SUFFIX = {
    ".onnx": "onnxruntime",
    ".pt": "pytorch",
    ".xml": "openvino",
    ".plan": "tensorrt",
}
_REFUSED_BACKENDS = {
    "python": "model.py is code for Triton's Python backend: rewrite `execute(requests)` as a "
    "class with `load(self, context)` and `infer(self, inputs) -> outputs` on numpy arrays and "
    "add it with `squadron models add file.py:Class --input ... --output ...`",
    "tensorrt": "a TensorRT plan is bound to the GPU and version it was built with: import the "
    "ONNX model it was made of",
    "tensorflow": "no engine runs TensorFlow graphs: export the model to ONNX",
    "fil": "no engine runs tree ensembles of this format: export the model to ONNX",
    "dali": "no engine runs DALI pipelines: the card's `preprocess` decodes and resizes pictures",
    "vllm": "language models are not served through this import",
    "tensorrtllm": "language models are not served through this import",
}
_DROPPED = {
    "runtime": "the engine's library is the installed one",
    "cc_model_filenames": "one artefact a model, the one of default_model_filename",
    "metric_tags": "metrics carry the model's, version's and variant's names",
    "model_metrics": "histogram buckets are the same for all models",
    "model_repository_agents": "nothing processes a model before it is loaded; the store checks "
    "the sha256 of every artefact",
}
_CARRIED = frozenset(
    {
        "name", "platform", "backend", "version_policy", "max_batch_size", "input", "output",
        "batch_input", "batch_output", "dynamic_batching", "instance_group", "sequence_batching",
        "ensemble_scheduling", "default_model_filename", "parameters", "optimization",
        "model_warmup", "model_operations", "model_transaction_policy", "response_cache",
    }
)  # fmt: skip
_PRECISION_PARAMETER = "INFERENCE_PRECISION_HINT"
_PRECISIONS = ("f32", "bf16", "f16")
_GRAPH_LEVELS = {-1: "basic", 1: "extended", 2: "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the artefact is, and the name of its file in a version's folder."""

    format: Format
    file: str


def kind_of(config: Any, findings: Findings) -> Kind | None:
    """None (and a finding that says what to do) for a backend that has no engine here."""
    suffix = "." + config.default_model_filename.rpartition(".")[2]
    backend = (
        config.backend
        or _BACKEND_OF_PLATFORM.get(config.platform, config.platform)
        or _BACKEND_OF_SUFFIX.get(suffix, "")
    )
    found = _BACKENDS.get(backend)
    if found is None:
        field = "backend" if config.backend else "platform"
        reason = _REFUSED_BACKENDS.get(backend, f"backend {backend!r} is no engine of ours")
        findings.refused(field, reason if backend else "neither backend nor platform is named")
        return None
    return Kind(format=found[0], file=config.default_model_filename or found[1])


def variant_section(config: Any, findings: Findings) -> dict[str, object]:
    """An entry of `variants:` without its `source`; keys whose value is not the default."""
    _report(config, findings)
    section = instances_of(config, findings).section()
    threads = _threads(config, findings)
    if threads:
        section["threads"] = threads
    batching = batching_section(config, findings)
    if batching:
        section["batching"] = batching
    sequences = sequences_section(config, findings)
    if sequences:
        section["sequences"] = sequences
    if config.response_cache.enable:
        section["response_cache"] = {"enabled": True}
        kept_s = ResponseCacheConfig().ttl_s
        findings.changed("response_cache", f"answers are kept for {kept_s:g} s (`ttl_s`)")
    options = _options(config, findings)
    if options:
        section["options"] = options
    return section


def _report(config: Any, findings: Findings) -> None:
    for descriptor, _ in config.ListFields():
        if descriptor.name not in _CARRIED:
            reason = _DROPPED.get(descriptor.name, "there is nothing like it here")
            findings.dropped(descriptor.name, reason)
    if config.model_operations.op_library_filename:
        findings.refused(
            "model_operations.op_library_filename", "libraries of custom operators are not loaded"
        )
    if config.model_transaction_policy.decoupled:
        findings.refused(
            "model_transaction_policy.decoupled", "this engine gives one answer a request"
        )
    _report_warm_up(config, findings)


def _report_warm_up(config: Any, findings: Findings) -> None:
    """Each replica runs zeros with one row and with the largest batch before it is ready."""
    for sample in config.model_warmup:
        field = f"model_warmup.{sample.name or 'sample'}"
        kinds = {entry.WhichOneof("input_data_type") for entry in sample.inputs.values()}
        if kinds - {"zero_data"}:
            findings.changed(field, "every replica is warmed with zeros instead of this data")
        elif sample.batch_size not in (0, 1, config.max_batch_size):
            findings.changed(
                field,
                f"warmed with 1 and {config.max_batch_size} rows instead of {sample.batch_size}",
            )


def _is_openvino(config: Any) -> bool:
    return bool(config.backend == "openvino")


def _thread_parameter(config: Any) -> str:
    return "INFERENCE_NUM_THREADS" if _is_openvino(config) else "intra_op_thread_count"


def _threads(config: Any, findings: Findings) -> int:
    """0: the default."""
    name = _thread_parameter(config)
    entry = config.parameters.get(name)
    text = "" if entry is None else entry.string_value
    if not text:
        return 0
    if not text.isdecimal() or int(text) > 256:
        findings.dropped(f"parameters.{name}", f"{text!r} is not a count up to 256")
        return 0
    if int(text) == 0:
        findings.changed(
            f"parameters.{name}",
            "0 (a thread a core) becomes 1: replicas share the machine; set `threads`",
        )
    return int(text)


def _options(config: Any, findings: Findings) -> dict[str, object]:
    options: dict[str, object] = {}
    optimization = config.optimization
    is_onnx = config.backend == "onnxruntime" or config.platform == "onnxruntime_onnx"
    level = _GRAPH_LEVELS.get(optimization.graph.level)
    if level and is_onnx:
        options["graph_optimization"] = level
    for descriptor, _ in optimization.ListFields():
        match descriptor.name:
            case "graph":
                if not is_onnx:
                    findings.dropped("optimization.graph", "only onnxruntime has graph levels")
            case "execution_accelerators":
                _report_accelerators(optimization.execution_accelerators, findings)
            case name:
                findings.dropped(f"optimization.{name}", "the engine decides this itself")
    for name in sorted(config.parameters):
        if name == _thread_parameter(config):
            continue
        value = config.parameters[name].string_value.lower()
        if _is_openvino(config) and name == _PRECISION_PARAMETER and value in _PRECISIONS:
            options["precision"] = value
        else:
            findings.dropped(f"parameters.{name}", "no engine of ours has this parameter")
    return options


def _report_accelerators(accelerators: Any, findings: Findings) -> None:
    every = (*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator)
    for accelerator in every:
        findings.dropped(
            f"optimization.execution_accelerators.{accelerator.name}",
            "`device: auto` takes the best provider that onnxruntime offers; it has no parameters",
        )
