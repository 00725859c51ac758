"""Which `.pt2` archives may be opened: those that hold no pickled objects but plain tensors."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import torch

from cluster.errors import ConfigError

_PICKLED_KINDS = ("custom_obj_", "opaque_obj_")


def refuse_pickles(file: Path) -> None:
    """`torch.export.load` unpickles weights, constants and sample inputs without restriction when
    the archive says so, or when the restricted loader refuses them; so both are tried here first.

    Raises: ConfigError naming the file and the member of the archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith("_config.json"):
                    _check_payloads(file, name, archive.read(name))
                elif name.endswith(".pt"):
                    _check_plain(file, name, archive.read(name))
    except (zipfile.BadZipFile, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{file}: not a torch.export archive: {error}", file=str(file), key="artefact"
        ) from None


def _check_payloads(file: Path, name: str, content: bytes) -> None:
    for tensor, payload in json.loads(content).get("config", {}).items():
        kind = str(payload.get("path_name", ""))
        if payload.get("use_pickle") or kind.startswith(_PICKLED_KINDS):
            raise _pickled(file, f"{name}: {tensor}")


def _check_plain(file: Path, name: str, content: bytes) -> None:
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception:
        raise _pickled(file, name) from None


def _pickled(file: Path, member: str) -> ConfigError:
    return ConfigError(
        f"{file}: {member} holds pickled objects, which could run any code when opened; export "
        "the model again with plain, contiguous tensors",
        file=str(file),
        key="artefact",
    )
