"""What an optimised artefact depends on beside the model: the processor, the libraries."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "torch",
    "torchao",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "onnxslim",
    "openvino",
    "nncf",
    "transformers",
    "tensorrt",
    "executorch",
)
"""Those whose version changes what comes out of an export, a pass or a quantisation."""

INSTRUCTIONS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""The instruction sets that decide which precision pays, as Linux names them."""


TOOLCHAIN = "squadron-toolchain"
BUILDING = ("export", "graph", "precision", "pruning", "training", "encoder.py", "search/build.py")
"""Where the code lies that makes artefacts."""


@cache
def toolchain_version() -> str:
    """Of the code here that builds: a recipe that was mended must not answer from the cache."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for room in BUILDING:
        place = root / room
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.relative_to(root)} ".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """`processor` is its own name; `instructions` are those of `INSTRUCTIONS` that it has."""

    processor: str
    cores: int
    architecture: str
    system: str
    instructions: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        return {
            "processor": self.processor,
            "cores": self.cores,
            "architecture": self.architecture,
            "system": self.system,
            "instructions": list(self.instructions),
        }


def hardware(cpuinfo: Path = Path("/proc/cpuinfo")) -> Hardware:
    """This machine. Where there is no cpuinfo (macOS, Windows) the instructions stay unknown."""
    facts: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                facts.setdefault(name.strip(), value.strip())
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    # Hypervisors hide the name of the model ("AMD EPYC"): family and model number still tell.
    generation = " ".join(
        f"{short} {facts[name]}"
        for short, name in (("family", "cpu family"), ("model", "model"), ("stepping", "stepping"))
        if name in facts
    )
    name = facts.get("model name") or platform.processor() or platform.machine()
    return Hardware(
        processor=f"{name} ({generation})" if generation else name,
        cores=os.cpu_count() or 1,
        architecture=platform.machine(),
        system=platform.system(),
        instructions=tuple(flag for flag in INSTRUCTIONS if flag in flags),
    )


def library_versions(names: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Name -> version of those that are installed, and the toolchain's own. Imports nothing."""
    found: dict[str, str] = {TOOLCHAIN: toolchain_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
