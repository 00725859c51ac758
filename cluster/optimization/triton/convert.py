"""A Triton model repository as folders of our store and a Serve config file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from cluster.config.ensemble import EnsembleConfig
from cluster.config.model_card import ModelCard
from cluster.config.section import NAME_PATTERN
from cluster.config.sequences import SequencesConfig
from cluster.config.serve_file import IMPORT_PATH
from cluster.config.squadron import RESERVED_NAMES, SquadronConfig
from cluster.config.store import ModelStore
from cluster.config.variant import BatchingConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError
from cluster.optimization.triton.artefacts import Stored, store_version
from cluster.optimization.triton.complete import complete
from cluster.optimization.triton.repository import TritonModel, read_repository
from cluster.processing.pipeline import ragged_of
from cluster.protocols.triton.ensemble import ensemble_section
from cluster.protocols.triton.findings import Finding, Findings
from cluster.protocols.triton.signature import signature_of, with_sequence_tensors
from cluster.protocols.triton.variant import kind_of, variant_section
from cluster.routing.ensembles.plan import plan_ensemble
from cluster.tensors import Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """`config` is the whole Serve file; empty when nothing can be served."""

    stored: tuple[Stored, ...]
    variants: tuple[str, ...]
    ensembles: tuple[str, ...]
    findings: tuple[Finding, ...]
    config: dict[str, object]

    def lost(self) -> tuple[Finding, ...]:
        """What an import that may lose nothing fails on."""
        return tuple(found for found in self.findings if found.outcome != "changed")


def import_repository(root: Path, store: ModelStore) -> ImportReport:
    """Fill the store; the file to serve it with is in the report.

    Raises: ConfigError for a repository or configuration that cannot be read, for a version that is
    in the store with other content, and when nothing can be served.
    """
    work = _Import(store)
    models = read_repository(root)
    for model, findings in models:
        if not re.fullmatch(NAME_PATTERN, model.name) or model.name in RESERVED_NAMES:
            findings.refused("name", "letters, digits, '.', '_', '-'; not 'stats'")
        if not findings.has_refused() and not _is_ensemble(model):
            work.add_model(model, findings)
    work.add_ensembles([each for each in models if _is_ensemble(each[0])])
    found = tuple(finding for _, findings in models for finding in findings.found)
    if not work.variants:
        told = "; ".join(f"{item.model}: {item.field}: {item.reason}" for item in found)
        raise ConfigError(f"{root}: nothing in it can be served: {told}", file=str(root))
    return ImportReport(
        stored=tuple(work.stored),
        variants=tuple(work.variants),
        ensembles=tuple(work.ensembles),
        findings=found,
        config=_serve_file(store, work.variants, work.ensembles),
    )


def write_serve_file(report: ImportReport, root: Path, file: Path) -> None:
    """Write the Serve file, with a line on where it came from."""
    head = f"# Imported from the Triton model repository {root.name}; edit freely.\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    body = yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True)
    file.write_text(head + body, encoding="utf-8")


class _Import:
    """What has been taken over so far. `signatures`: of every name that can be called."""

    def __init__(self, store: ModelStore) -> None:
        self.stored: list[Stored] = []
        self.variants: dict[str, dict[str, object]] = {}
        self.ensembles: dict[str, dict[str, object]] = {}
        self._store = store
        self._signatures: dict[str, Signature] = {}
        self._names: dict[tuple[str, str], str] = {}

    def add_model(self, model: TritonModel, findings: Findings) -> None:
        """Store its versions and name them, unless anything about it is refused."""
        try:
            config = complete(model)
        except ConfigError as error:
            findings.refused("input", f"cannot be completed from the artefact: {error.message}")
            return
        model = replace(model, config=config)
        kind = kind_of(config, findings)
        if kind is None:
            return
        section = variant_section(config, findings)
        signature = signature_of(config, findings)
        if signature is None and not findings.has_refused():
            findings.refused("input", "inputs and outputs must be named: this file has no names")
        if findings.has_refused() or signature is None:
            return
        if "sequences" in section:
            sequences = SequencesConfig.model_validate(section["sequences"])
            is_batched = config.max_batch_size > 0
            signature = with_sequence_tensors(signature, sequences, is_batched=is_batched)
        added = [
            store_version(model, version, kind, signature, self._store, findings)
            for version in model.versions
        ]
        self.stored.extend(each for each in added if each is not None)
        if findings.has_refused():
            return
        for version in model.versions:
            is_newest = version == model.versions[-1]
            name = model.name if is_newest else f"{model.name}-v{version}"
            self._names[model.name, str(version)] = name
            older = {} if is_newest else {"version_of": model.name}
            self.variants[name] = {"source": f"{model.name}/{version}", **older, **section}
            card = self._store.card(model.name, str(version))
            self._signatures[name] = _public(card, section)

    def add_ensembles(self, waiting: list[tuple[TritonModel, Findings]]) -> None:
        """Those whose members can be called; an ensemble may be a member of another."""
        waiting = [each for each in waiting if not each[1].has_refused()]
        while waiting:
            left = {model.name for model, _ in waiting}
            ready = [each for each in waiting if not _members(each[0]) & left]
            for model, findings in ready or waiting:
                self._add_ensemble(model, findings)
            waiting = [each for each in waiting if each not in ready] if ready else []

    def _add_ensemble(self, model: TritonModel, findings: Findings) -> None:
        section = ensemble_section(model.config, self._name_of, findings)
        if findings.has_refused():
            return
        try:
            checked = check_section(section, EnsembleConfig, source=model.name)
            plan = plan_ensemble(model.name, checked, self._signatures, {})
        except ConfigError as error:
            findings.refused("ensemble_scheduling", error.message)
            return
        self.ensembles[model.name] = section
        self._signatures[model.name] = plan.signature

    def _name_of(self, model: str, version: str) -> str | None:
        if version and model not in self.ensembles:
            return self._names.get((model, version))
        return model if model in self._signatures else None


def _public(card: ModelCard, section: dict[str, object]) -> Signature:
    batching = BatchingConfig.model_validate(section.get("batching", {}))
    if batching.ragged is not None:
        return ragged_of(card, batching.ragged).signature
    return card.public_signature()


def _is_ensemble(model: TritonModel) -> bool:
    return bool(model.config.HasField("ensemble_scheduling") or model.config.platform == "ensemble")


def _members(model: TritonModel) -> set[str]:
    return {step.model_name for step in model.config.ensemble_scheduling.step}


def _serve_file(
    store: ModelStore,
    variants: dict[str, dict[str, object]],
    ensembles: dict[str, dict[str, object]],
) -> dict[str, object]:
    args: dict[str, object] = {"store": {"path": str(store.root)}, "variants": variants}
    if ensembles:
        args["ensembles"] = ensembles
    check_section(args, SquadronConfig, source="the imported configuration")
    application = {
        "name": "squadron",
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": args,
    }
    return {
        "http_options": {"host": "127.0.0.1", "port": 8500},
        "logging_config": {"enable_access_log": False},
        "applications": [application],
    }
