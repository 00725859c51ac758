"""Whether a language model can be run as its `llm:` says, before anything of it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.config.language.settings import LanguageConfig
from cluster.config.model_card import ModelCard
from cluster.config.store import ModelStore
from cluster.errors import ConfigError


def check_language(llm: LanguageConfig, card: ModelCard, folder: Path) -> None:
    """Degrees and length against the model's own `config.json`; of a model that another machine
    has nothing is said. Raises: ConfigError."""
    if card.format != "causal_lm":
        raise ConfigError(
            f"llm: {card.name} is {card.format}; only causal_lm models generate", key="llm"
        )
    model = _config_of(folder)
    heads = model.get("num_attention_heads")
    if heads and heads % llm.tensor_parallel:
        raise ConfigError(
            f"llm.tensor_parallel {llm.tensor_parallel} does not divide the {heads} attention "
            f"heads of {card.name}",
            key="llm.tensor_parallel",
            value=llm.tensor_parallel,
        )
    layers = model.get("num_hidden_layers")
    if layers and layers < llm.pipeline_parallel:
        raise ConfigError(
            f"llm.pipeline_parallel {llm.pipeline_parallel} is more than the {layers} layers of "
            f"{card.name}",
            key="llm.pipeline_parallel",
            value=llm.pipeline_parallel,
        )
    most = longest(model)
    if most and llm.max_model_len > most:
        raise ConfigError(
            f"llm.max_model_len {llm.max_model_len} is more than the {most} positions of "
            f"{card.name}",
            key="llm.max_model_len",
            value=llm.max_model_len,
            allowed=f"at most {most}",
        )


def longest(model: dict[str, Any]) -> int:
    """Positions that a model's `config.json` knows; 0 where it stretches them (`rope_scaling`) or
    does not say."""
    rope = model.get("rope_parameters") or model.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    is_stretched = kind != "default" or any(isinstance(each, dict) for each in rope.values())
    return 0 if is_stretched else int(model.get("max_position_embeddings") or 0)


def check_files(llm: LanguageConfig) -> None:
    """Where the model is loaded: what its section names must lie there. Raises: ConfigError."""
    if llm.chat_template and not Path(llm.chat_template).is_file():
        raise ConfigError(
            f"llm.chat_template {llm.chat_template!r} is no file",
            key="llm.chat_template",
            value=llm.chat_template,
        )
    for adapter in llm.lora.adapters if llm.lora is not None else ():
        if not (Path(adapter.path) / "adapter_config.json").is_file():
            raise ConfigError(
                f"llm.lora.adapters: {adapter.name!r} has no adapter_config.json in "
                f"{adapter.path!r}",
                key="llm.lora.adapters",
                value=adapter.path,
                allowed="a folder as `peft` saves adapters",
            )
    directory = llm.lora.directory if llm.lora is not None else ""
    if directory and not Path(directory).is_dir():
        # Mistyped, every adapter in it would be a model that does not exist.
        raise ConfigError(
            f"llm.lora.directory {directory!r} is no folder",
            key="llm.lora.directory",
            value=directory,
            allowed="a folder, empty as yet if need be",
        )


def with_draft(llm: LanguageConfig, store: ModelStore) -> LanguageConfig:
    """The draft model's name in the store as its folder. Raises: ConfigError for one that is
    neither a folder nor in the store."""
    guess = llm.speculative
    if guess is None or not guess.draft_model or Path(guess.draft_model).is_dir():
        return llm
    source, _, version = guess.draft_model.partition("/")
    if not store.versions(source):
        raise ConfigError(
            f"llm.speculative.draft_model {guess.draft_model!r} is no folder and no model of the "
            f"store {store.root}",
            key="llm.speculative.draft_model",
            value=guess.draft_model,
            allowed="a folder, or a name in the store",
        )
    folder = str(store.folder(source, version))
    return llm.model_copy(update={"speculative": guess.model_copy(update={"draft_model": folder})})


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    # Of models that read more than text it lies one level deeper.
    text = found.get("text_config")
    return text if isinstance(text, dict) else found
