"""What every language engine promises, asked of torch on a tiny model with random weights.

vLLM is asked the same over HTTP in `tests/conformance/openai`: it takes a minute to start.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.config.language.settings import LanguageConfig
from cluster.engines.language.engine import LanguageEngine, LanguageSetup, Prompt
from cluster.engines.language.kv_slots import CacheStep, KvSlots
from cluster.engines.language.sampler import Sampler
from cluster.engines.language.table import make_language_engine
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, Unsupported
from cluster.generation import Delta, EngineLoad, Grammar, Sampling

EOS = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, one token a byte, and weights large enough that answers differ."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = tmp_path_factory.mktemp("tiny-llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": EOS, **{each: i for i, each in enumerate(alphabet, start=1)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    fast.save_pretrained(made)
    torch.manual_seed(3)
    make: Any = LlamaForCausalLM
    model = make(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.4,
            eos_token_id=EOS,
            bos_token_id=None,
        )
    )
    model.save_pretrained(made)
    return made


@pytest_asyncio.fixture
async def engine(folder: Path) -> AsyncIterator[LanguageEngine]:
    made = make_language_engine("torch", setup(folder))
    await made.start()
    yield made
    await made.close()


def setup(folder: Path, **llm: object) -> LanguageSetup:
    config = LanguageConfig.model_validate({"max_num_seqs": 4, "max_model_len": 400} | llm)
    return LanguageSetup(name="tiny", folder=folder, config=config, device="cpu")


def text(found: list[Delta]) -> str:
    return "".join(delta.text for delta in found)


def prompt(text: str, request_id: str = "r") -> Prompt:
    # Bytes in the tokenizer's own order: any ids will do, so these are spread over all. Those of
    # capitals are whole characters, others may leave the answer the rest of one.
    return Prompt(request_id=request_id, token_ids=tuple(1 + byte % 250 for byte in text.encode()))


async def deltas(engine: LanguageEngine, asked: Prompt, **sampling: Any) -> list[Delta]:
    chosen = Sampling(**({"max_tokens": 12, "temperature": 0.0} | sampling))
    async with aclosing(engine.generate(asked, chosen)) as found:
        return [delta async for delta in found]


def ids(found: list[Delta], index: int = 0) -> list[int]:
    return [token for delta in found if delta.index == index for token in delta.token_ids]


def of_transformers(folder: Path, asked: Prompt, num_tokens: int) -> list[int]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    given = torch.tensor([list(asked.token_ids)])
    out = model.generate(given, do_sample=False, max_new_tokens=num_tokens, pad_token_id=EOS)
    return [int(each) for each in out[0, given.shape[1] :]]


async def test_greedy_tokens_are_those_of_transformers(
    engine: LanguageEngine, folder: Path
) -> None:
    asked = prompt("once upon a time")

    assert ids(await deltas(engine, asked)) == of_transformers(folder, asked, 12)


async def test_a_prompt_of_several_pieces_gives_the_same(
    engine: LanguageEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.engines.language.torch_batch.PROMPT_PIECE", 7)
    asked = prompt("a prompt of more than a few tokens")

    assert ids(await deltas(engine, asked)) == of_transformers(folder, asked, 12)


async def test_company_changes_no_token(engine: LanguageEngine) -> None:
    asked = [prompt(f"{'word ' * (i % 5)}number {i}", f"r{i}") for i in range(10)]
    alone = [ids(await deltas(engine, each)) for each in asked]

    together = await asyncio.gather(*(deltas(engine, each) for each in asked))

    assert [ids(found) for found in together] == alone
    assert len({tuple(each) for each in alone}) > 1


async def test_choices_share_the_computation_of_their_prompt(
    engine: LanguageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    one_prompt = KvSlots.step_of_one

    def counted(self: KvSlots, slot: int, num_tokens: int) -> CacheStep:
        computed.append(num_tokens)
        return one_prompt(self, slot, num_tokens)

    monkeypatch.setattr(KvSlots, "step_of_one", counted)
    asked = prompt("once upon a time")
    options: dict[str, Any] = {"temperature": 1.0, "ignore_eos": True, "num_logprobs": 1}
    together = await deltas(engine, asked, num_choices=4, seed=5, scores_prompt=True, **options)

    assert computed == [len(asked.token_ids)]
    for index in range(4):
        # A choice's seed is the request's and its number.
        alone = await deltas(engine, asked, seed=5 + index, scores_prompt=True, **options)
        assert ids(together, index) == ids(alone)
        first = next(delta for delta in together if delta.index == index)
        assert first.prompt_scores[1:] == alone[0].prompt_scores[1:]


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
async def test_layers_with_a_window_see_no_more_than_it(
    folder: Path, tmp_path: Path, family: str
) -> None:
    """All layers of Mistral's, the second one of this Qwen's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(4)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}
    # The first is the number of layers that have none.
    mixed = {"max_window_layers": 1, "use_sliding_window": True} if family == "qwen2" else {}
    config = AutoConfig.for_model(
        family,
        vocab_size=257,
        sliding_window=8,
        eos_token_id=EOS,
        initializer_range=0.4,
        max_position_embeddings=512,
        **sizes,
        **heads,
        **mixed,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    made = make_language_engine("torch", setup(tmp_path))
    await made.start()
    asked = prompt("a prompt of more tokens than the window has places")

    found = await deltas(made, asked, ignore_eos=True)

    await made.close()
    assert ids(found) == of_transformers(tmp_path, asked, 12)


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("mamba", {"state_size": 4}, "cannot run tiny: MambaForCausalLM does not support"),
        ("lfm2", {"num_attention_heads": 2, "num_key_value_heads": 2}, "lfm2 has conv"),
    ],
)
async def test_a_model_that_keeps_other_things_than_keys_is_refused(
    folder: Path, tmp_path: Path, family: str, options: dict[str, Any], said: str
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    kinds = {"layer_types": ["conv"]} if family == "lfm2" else {}
    config = AutoConfig.for_model(
        family, vocab_size=257, hidden_size=16, num_hidden_layers=1, **options, **kinds
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    made = make_language_engine("torch", setup(tmp_path))

    with pytest.raises(ConfigError, match=said):
        await made.start()


async def test_each_choice_ends_once(engine: LanguageEngine) -> None:
    found = await deltas(engine, prompt("x"), num_choices=3, temperature=1.0, seed=1)

    ended = [delta.index for delta in found if delta.finish_reason]
    assert sorted(ended) == [0, 1, 2]


async def test_a_seed_repeats_all_choices(engine: LanguageEngine) -> None:
    one, other = [
        await deltas(engine, prompt("x"), num_choices=2, temperature=1.0, seed=9) for _ in range(2)
    ]

    assert [ids(one, i) for i in (0, 1)] == [ids(other, i) for i in (0, 1)]
    assert ids(one, 0) != ids(one, 1)


async def test_without_streaming_a_choice_comes_whole(engine: LanguageEngine) -> None:
    (whole,) = await deltas(engine, prompt("x"), streams=False)

    assert list(whole.token_ids) == ids(await deltas(engine, prompt("x")))


async def test_the_last_token_allowed_ends_with_length(engine: LanguageEngine) -> None:
    found = await deltas(engine, prompt("x"), max_tokens=3, ignore_eos=True)

    assert (len(ids(found)), found[-1].finish_reason) == (3, "length")


async def test_a_stop_token_ends_with_stop(engine: LanguageEngine) -> None:
    third = ids(await deltas(engine, prompt("x"), ignore_eos=True))[2]
    found = await deltas(engine, prompt("x"), stop_token_ids=(third,), ignore_eos=True)

    assert (len(ids(found)), found[-1].finish_reason) == (3, "stop")
    # Its text is none of the answer's, unless it is asked for.
    two = await deltas(engine, prompt("x"), max_tokens=2, ignore_eos=True)
    assert text(found) == text(two)
    kept = await deltas(
        engine, prompt("x"), stop_token_ids=(third,), ignore_eos=True, keeps_stop=True
    )
    three = await deltas(engine, prompt("x"), max_tokens=3, ignore_eos=True)
    assert text(kept) == text(three)


async def test_logprobs_of_a_greedy_token_are_the_greatest(engine: LanguageEngine) -> None:
    found = await deltas(engine, prompt("x"), num_logprobs=2)

    for delta in found:
        for scored in delta.scores:
            assert scored.top[0] == scored.chosen
            assert scored.top[0].logprob >= scored.top[1].logprob


async def test_a_prompts_tokens_are_scored_as_transformers_does(
    engine: LanguageEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr("cluster.engines.language.torch_batch.SCORED_PIECE", 7)
    asked = prompt("a prompt of more than a few tokens")
    found = await deltas(engine, asked, num_logprobs=3, scores_prompt=True)

    given = torch.tensor([list(asked.token_ids)])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(given).logits[0], dim=-1)
    first, *others = found[0].prompt_scores
    assert not any(delta.prompt_scores for delta in found[1:])
    assert [each.chosen.token_id for each in found[0].prompt_scores] == list(asked.token_ids)
    assert math.isnan(first.chosen.logprob)
    for row, token, scored in zip(logprobs, asked.token_ids[1:], others, strict=False):
        assert scored.chosen.logprob == pytest.approx(float(row[token]), abs=1e-4)
        assert scored.top[0].logprob == pytest.approx(float(row.max()), abs=1e-4)
    # What follows is chosen as ever.
    assert ids(found) == ids(await deltas(engine, asked))


async def test_a_bias_bans_a_token(engine: LanguageEngine) -> None:
    first = ids(await deltas(engine, prompt("x")))[0]

    assert first not in ids(await deltas(engine, prompt("x"), logit_bias={first: -100.0}))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_schema_is_followed(engine: LanguageEngine, temperature: float) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 22]}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    grammar = Grammar(kind="json_schema", text=json.dumps(schema))
    found = await deltas(
        engine, prompt("X"), grammar=grammar, max_tokens=60, temperature=temperature
    )

    parsed = json.loads("".join(delta.text for delta in found))
    assert parsed["a"] in (1, 22)
    assert isinstance(parsed["b"], bool)
    assert found[-1].finish_reason == "stop"


async def test_a_request_that_nothing_can_follow_ends_alone(engine: LanguageEngine) -> None:
    """Infinite logits, and a grammar whose end is banned: the others get what they always get."""
    expected = ids(await deltas(engine, prompt("y")))
    schema = Grammar(kind="json_schema", text='{"enum": [1]}')
    strange: list[dict[str, Any]] = [
        {"repetition_penalty": 1e-40, "temperature": 1.0},
        {"temperature": 1.1e-5, "frequency_penalty": -2.0},
        {"grammar": schema, "min_tokens": 9, "temperature": 1.0},
        {"grammar": schema, "allowed_token_ids": (3,), "temperature": 1.0},
        {"allowed_token_ids": (EOS,), "min_tokens": 9},
    ]
    asked = [deltas(engine, prompt("x", f"s{i}"), **more) for i, more in enumerate(strange)]
    found = await asyncio.gather(*asked, deltas(engine, prompt("y")), return_exceptions=True)

    assert all(isinstance(each, list | InvalidRequest) for each in found)
    assert isinstance(found[-1], list)
    assert ids(found[-1]) == expected
    engine.check_health()


async def test_a_failure_of_one_choice_is_its_requests_own(
    engine: LanguageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Sampler, logits: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Sampler, "choose", broken)
    with pytest.raises(EngineFailed, match="gave the request up"):
        await deltas(engine, prompt("x"), temperature=1.0)
    with pytest.raises(InvalidRequest, match="no text can be generated"):
        await deltas(engine, prompt("x"), grammar=Grammar(kind="json_object"))

    assert ids(await deltas(engine, prompt("x")))
    engine.check_health()


async def test_nothing_ends_before_the_tokens_that_are_wanted(engine: LanguageEngine) -> None:
    free = await deltas(engine, prompt("x"), ignore_eos=True)
    second = ids(free)[1]
    text = "".join(delta.text for delta in free)
    stopped = await deltas(engine, prompt("x"), stop=(text[0],), ignore_eos=True)
    later = await deltas(engine, prompt("x"), stop=(text[0],), min_tokens=6, ignore_eos=True)
    found = await deltas(engine, prompt("x"), stop_token_ids=(second,), min_tokens=6)

    assert len(ids(stopped)) < 6
    assert len(ids(later)) > 6
    assert len(ids(found)) >= 6
    assert second not in ids(found)[:6]


async def test_only_allowed_tokens_are_taken(engine: LanguageEngine) -> None:
    for temperature in (0.0, 1.0):
        found = await deltas(
            engine, prompt("x"), allowed_token_ids=(65, 66), temperature=temperature
        )

        assert set(ids(found)) <= {65, 66}
        assert len(ids(found)) == 12


async def test_a_choice_is_one_of_those_given(engine: LanguageEngine) -> None:
    grammar = Grammar(kind="regex", text=r"(yes)|(no\ way)")
    found = await deltas(engine, prompt("X"), grammar=grammar, max_tokens=20)

    assert "".join(delta.text for delta in found) in ("yes", "no way")


async def test_who_leaves_frees_the_memory(engine: LanguageEngine) -> None:
    running = engine.generate(prompt("x"), Sampling(max_tokens=300, ignore_eos=True))
    await anext(running)
    assert engine.load() != EngineLoad()

    await running.aclose()

    while engine.load() != EngineLoad():  # noqa: ASYNC110  (the engine's thread tells nobody)
        await asyncio.sleep(0.001)
    assert ids(await deltas(engine, prompt("y")))


async def test_more_requests_than_places_all_end(engine: LanguageEngine) -> None:
    found = await asyncio.gather(
        *(deltas(engine, prompt(f"n{i}", f"r{i}"), max_tokens=5) for i in range(12))
    )

    assert all(each[-1].finish_reason for each in found)


async def test_a_static_cache_gives_the_same_tokens(engine: LanguageEngine, folder: Path) -> None:
    other = make_language_engine("torch", setup(folder, cache_growth="static"))
    await other.start()

    assert ids(await deltas(other, prompt("x"))) == ids(await deltas(engine, prompt("x")))
    await other.close()


async def test_the_memory_of_all_sequences_is_bounded(folder: Path) -> None:
    # 512 bytes a token and room for one sequence of 400: four come, and one after the other go.
    bounded = make_language_engine("torch", setup(folder, kv_cache_bytes=400 * 256))
    await bounded.start()
    wide = prompt("a" * 200)
    found = await asyncio.gather(*(deltas(bounded, wide, max_tokens=100) for _ in range(4)))

    assert len({tuple(ids(each)) for each in found}) == 1
    await bounded.close()


async def test_an_engine_that_was_closed_is_not_healthy(folder: Path) -> None:
    made = make_language_engine("torch", setup(folder))
    await made.start()
    made.check_health()
    await made.close()

    with pytest.raises(Exception, match="does not run"):
        made.check_health()


async def test_adapters_are_unsupported_by_name(engine: LanguageEngine) -> None:
    with pytest.raises(Unsupported, match="engine: vllm"):
        await engine.add_lora("a", "/nowhere")


def test_what_only_vllm_has_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"llm\.quantisation, llm\.tensor_parallel"):
        make_language_engine("torch", setup(folder, quantisation="awq", tensor_parallel=2))


def test_an_engine_that_generates_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="allowed: torch, vllm"):
        make_language_engine("onnxruntime", setup(folder))
