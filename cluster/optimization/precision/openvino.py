"""OpenVINO's own format: fp32 and, by NNCF, int8 with calibration."""

from __future__ import annotations

from pathlib import Path

from cluster.errors import ConfigError
from cluster.optimization.precision.quiet import quiet
from cluster.optimization.search.recipe import Material


def convert(material: Material, folder: Path) -> None:
    import openvino as ov

    with quiet():
        ov.save_model(
            ov.convert_model(str(material.onnx)),
            str(folder / "model.xml"),
            compress_to_fp16=False,
        )


def int8(material: Material, folder: Path) -> None:
    """Post-training quantisation with bias correction; transformers with NNCF's scheme for them."""
    import nncf
    import openvino as ov

    with quiet():
        model = ov.convert_model(str(material.onnx))
        try:
            found = nncf.quantize(
                model,
                nncf.Dataset(list(material.calibration)),
                subset_size=len(material.calibration),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER if material.is_transformer else None,
            )
        except Exception as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"cannot be calibrated: {said}", key="calibration") from None
        ov.save_model(found, str(folder / "model.xml"), compress_to_fp16=False)
