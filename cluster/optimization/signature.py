"""What an artefact takes and gives, read from the artefact itself or from `name:dtype:dims`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config.model_card import SignatureCard, TensorCard
from cluster.engines.graph_signature import GraphTensor
from cluster.engines.table import check_installed
from cluster.errors import ConfigError
from cluster.tensors import DATATYPES, Datatype

if TYPE_CHECKING:
    import torch

ONNX_TYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
TORCH_TYPES: dict[str, Datatype] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}


def parse_tensor(text: str) -> TensorCard:
    """`name:dtype:dims`, as in `image:FP32:-1,3,224,224`; -1 is any size.

    Raises: ConfigError saying what is wrong and what is allowed.
    """
    # From the right: TensorFlow names have colons of their own ("x:0").
    name, _, rest = text.rpartition(":")
    name, _, datatype = name.rpartition(":")
    dims = rest.replace("x", ",").split(",") if rest else []
    if not name or datatype.upper() not in DATATYPES or not all(map(_is_dim, dims)):
        raise ConfigError(
            f"cannot read the tensor {text!r}; write name:dtype:dims, as in "
            f"image:FP32:-1,3,224,224 (dtype one of {', '.join(DATATYPES)}; -1 is any size)",
            key="tensor",
            value=text,
        )
    known = next(each for each in DATATYPES if each == datatype.upper())
    return TensorCard(name=name, datatype=known, shape=[int(dim) for dim in dims])


def _is_dim(text: str) -> bool:
    return text == "-1" or text.isdecimal()


def is_batched(signature: SignatureCard) -> bool:
    """Every tensor has a leading dimension of any size."""
    every = (*signature.inputs, *signature.outputs)
    return all(bool(card.shape) and card.shape[0] == -1 for card in every)


def onnx_signature(path: Path) -> SignatureCard:
    """Names, types and shapes of the graph; symbolic sizes are -1.

    Raises: ConfigError when onnxruntime cannot load the file or a tensor has no V2 datatype.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Only the names are wanted: optimising a large graph would cost seconds.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # onnxruntime raises classes of its own, all directly under Exception.
        raise ConfigError(f"{path}: onnxruntime cannot load it: {error}", file=str(path)) from error
    for what, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
        if not nodes:
            raise ConfigError(f"{path}: the graph has no {what}", file=str(path), key=what)
    return SignatureCard(
        inputs=[_onnx_tensor(path, node) for node in session.get_inputs()],
        outputs=[_onnx_tensor(path, node) for node in session.get_outputs()],
    )


def check_ranks(path: Path, said: Collection[str] = ()) -> None:
    """An input of unknown rank looks like a single number to the runtime: only the file tells.

    `said`: the inputs whose shape the caller gave. Raises: ConfigError naming the input.
    """
    import onnx

    for value in onnx.load(str(path), load_external_data=False).graph.input:
        if not value.type.tensor_type.HasField("shape") and value.name not in said:
            raise ConfigError(
                f"{path}: the graph does not say how many dimensions {value.name!r} has; say it "
                f"with --input {value.name}:DATATYPE:DIMS (and the outputs with --output)",
                file=str(path),
                key="input",
                value=value.name,
            )


def openvino_signature(path: Path) -> SignatureCard:
    """Names, types and shapes of OpenVINO's own format; sizes that are not fixed are -1.

    Raises: ConfigError when OpenVINO is not installed or cannot load the file, or when a tensor has
    no V2 datatype or no rank.
    """
    check_installed("openvino")
    # An extra of its own.
    from cluster.engines.openvino import read_graph

    inputs, outputs = read_graph(path)
    return SignatureCard(
        inputs=[_openvino_tensor(path, tensor) for tensor in inputs],
        outputs=[_openvino_tensor(path, tensor) for tensor in outputs],
    )


def _openvino_tensor(path: Path, tensor: GraphTensor) -> TensorCard:
    datatype = next((each for each in DATATYPES if each == tensor.datatype), None)
    if datatype is None or tensor.shape is None:
        what = "no rank" if datatype else f"{tensor.datatype}, which has no Open Inference datatype"
        raise ConfigError(
            f"{path}: tensor {tensor.name!r} is {what}", file=str(path), key=tensor.name
        )
    return TensorCard(name=tensor.name, datatype=datatype, shape=list(tensor.shape))


def _onnx_tensor(path: Path, node: Any) -> TensorCard:
    if node.type not in ONNX_TYPES:
        raise ConfigError(
            f"{path}: tensor {node.name!r} is {node.type}, which has no Open Inference datatype",
            file=str(path),
            key=str(node.name),
            value=str(node.type),
        )
    shape = [dim if isinstance(dim, int) else -1 for dim in node.shape]
    return TensorCard(name=node.name, datatype=ONNX_TYPES[node.type], shape=shape)


def exported_signature(path: Path) -> SignatureCard:
    """The signature of a `.pt2` file: the names its graph gives to inputs and outputs, in order.

    Raises: ConfigError when torch cannot load it or an input or output is not a tensor.
    """
    import torch

    from cluster.engines.pt2_archive import refuse_pickles

    refuse_pickles(path)
    try:
        program = torch.export.load(path)
    except Exception as error:
        # Loading fails in many ways (zip, schema version, operators), none with a common class.
        raise ConfigError(
            f"{path}: torch {torch.__version__} cannot load it as a torch.export program: {error}",
            file=str(path),
        ) from error
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [str(name) for name in program.graph_signature.user_inputs]
    outputs = [str(name) for name in program.graph_signature.user_outputs]
    return SignatureCard(
        inputs=[_torch_tensor(path, name, values.get(name)) for name in inputs],
        outputs=[_torch_tensor(path, name, values.get(name)) for name in outputs],
    )


def _torch_tensor(path: Path, name: str, value: torch.Tensor | None) -> TensorCard:
    datatype = TORCH_TYPES.get(str(getattr(value, "dtype", "")).removeprefix("torch."))
    if value is None or datatype is None:
        raise ConfigError(
            f"{path}: {name!r} is not a tensor with an Open Inference datatype",
            file=str(path),
            key=name,
        )
    shape = [dim if isinstance(dim, int) else -1 for dim in value.shape]
    return TensorCard(name=name, datatype=datatype, shape=shape)


def chosen_signature(
    found: SignatureCard | None,
    inputs: Sequence[TensorCard],
    outputs: Sequence[TensorCard],
    *,
    what: str,
) -> SignatureCard:
    """The flags where given, else what was found in the artefact.

    Raises: ConfigError when neither says, or when the flags count other tensors than the artefact.
    """
    if found is None:
        if inputs and outputs:
            return SignatureCard(inputs=list(inputs), outputs=list(outputs))
        raise ConfigError(
            f"{what} does not name its tensors: say them with --input and --output, as in "
            "--input image:FP32:-1,3,224,224 --output logits:FP32:-1,1000",
            key="input" if not inputs else "output",
        )
    for flag, given, own in (("input", inputs, found.inputs), ("output", outputs, found.outputs)):
        if given and len(given) != len(own):
            raise ConfigError(
                f"{what} has {len(own)} {flag}s ({', '.join(card.name for card in own)}), but "
                f"--{flag} was given {len(given)} times",
                key=flag,
            )
    return SignatureCard(
        inputs=list(inputs) or found.inputs, outputs=list(outputs) or found.outputs
    )


def check_names(signature: SignatureCard, found: SignatureCard, *, what: str) -> None:
    """Raises: ConfigError for a name that an artefact whose tensors go by name does not have."""
    for flag, said, own in (
        ("input", signature.inputs, found.inputs),
        ("output", signature.outputs, found.outputs),
    ):
        names = [card.name for card in own]
        for card in said:
            if card.name not in names:
                raise ConfigError(
                    f"{what} has no {flag} {card.name!r}; it has {', '.join(names)}",
                    key=flag,
                    value=card.name,
                    allowed=", ".join(names),
                )
