"""A Triton model repository as it lies on disk: models, their configurations and versions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import ConfigError
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import parse_text, says_max_batch_size

CONFIG_FILE = "config.pbtxt"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonModel:
    """One folder. `versions` are those that Triton would serve, ascending; `is_complete_batch`: the
    text names `max_batch_size`, so that a 0 is not to be completed."""

    name: str
    folder: Path
    config: Any
    versions: tuple[int, ...]
    is_complete_batch: bool


def read_repository(root: Path) -> list[tuple[TritonModel, Findings]]:
    """Every model by name, each with what is to be said of it.

    Raises: ConfigError when the folder is none or holds no model.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: no such directory", file=str(root))
    folders = sorted(path for path in root.iterdir() if _is_model(path))
    if not folders:
        raise ConfigError(
            f"{root}: no model in it; a model is a folder with a {CONFIG_FILE} or with a numbered "
            "version in it",
            file=str(root),
        )
    return [_read(folder) for folder in folders]


def chosen_versions(policy: Any, there: list[int], findings: Findings) -> tuple[int, ...]:
    """Those that the policy serves, ascending; the latest one without a policy."""
    match policy.WhichOneof("policy_choice"):
        case "all":
            return tuple(there)
        case "specific":
            wanted = sorted(set(policy.specific.versions))
            for version in wanted:
                if version not in there:
                    findings.dropped("version_policy.specific", f"there is no version {version}")
            return tuple(version for version in wanted if version in there)
        case "latest":
            return tuple(there[-max(1, policy.latest.num_versions) :])
    return tuple(there[-1:])


def _is_model(path: Path) -> bool:
    return (
        path.is_dir()
        and not path.name.startswith(".")
        and ((path / CONFIG_FILE).is_file() or bool(_version_folders(path)))
    )


def _version_folders(folder: Path) -> list[int]:
    """Triton ignores names that begin with a zero or are no numbers."""
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal() and not name.startswith("0"))


def _read(folder: Path) -> tuple[TritonModel, Findings]:
    findings = Findings(model=folder.name)
    file = folder / CONFIG_FILE
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        config = parse_text(text, source=str(file))
    except (ConfigError, UnicodeDecodeError, OSError) as error:
        # The others can be taken over all the same, as Triton serves them.
        text = ""
        config = parse_text(text, source=str(file))
        findings.refused(CONFIG_FILE, f"it cannot be read: {error}")
    if config.name and config.name != folder.name:
        findings.refused("name", f"the folder is called {folder.name}, the name is {config.name}")
    versions = chosen_versions(config.version_policy, _version_folders(folder), findings)
    if not versions:
        findings.refused("version_policy", "no version of it is there to serve")
    model = TritonModel(
        name=folder.name,
        folder=folder,
        config=config,
        versions=versions,
        is_complete_batch=says_max_batch_size(text),
    )
    return model, findings
