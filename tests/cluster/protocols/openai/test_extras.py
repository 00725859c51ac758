from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.engines.language.grammar import compile_grammar
from cluster.errors import InvalidRequest
from cluster.generation import Grammar
from cluster.protocols.openai.extras import session_of
from cluster.protocols.openai.parameters import adapter_of, completion_of
from cluster.protocols.openai.requests import (
    ChatRequest,
    CompletionRequest,
    TokenizeRequest,
    decode,
)
from cluster.protocols.openai.sampling import sampling_of

SIZES: dict[str, int] = {"num_prompt_tokens": 10, "max_model_len": 100, "vocab_size": 50}


def chat(**fields: object) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields
    return decode(json.dumps(body).encode(), ChatRequest)


def refused(**fields: Any) -> str:
    """The field that the complaint names."""
    with pytest.raises(InvalidRequest) as caught:
        sampling_of(chat(**fields), **SIZES)
    return str(caught.value.details["param"])


def grammar(**wanted: object) -> Grammar:
    found = sampling_of(chat(structured_outputs=wanted), **SIZES).grammar
    assert found is not None
    compile_grammar(found)
    return found


def test_each_way_to_guide_is_a_grammar() -> None:
    assert grammar(regex="a+").kind == "regex"
    assert grammar(json={"type": "object"}).text == '{"type": "object"}'
    assert grammar(json_object=True).kind == "json_object"
    assert grammar(grammar='start: "a" | "b"').kind == "lark"


def test_choices_are_taken_as_they_are_written() -> None:
    assert grammar(choice=["a.b", "c (d)", "<e> f"]).text == r"(a\.b)|(c\ \(d\))|(<e>\ f)"


@pytest.mark.parametrize(
    "wanted",
    [{}, {"regex": "a", "choice": ["a"]}, {"choice": []}, {"choice": [""]}, {"json_object": False}],
)
def test_guidance_is_said_in_one_way(wanted: object) -> None:
    assert refused(structured_outputs=wanted) == "structured_outputs"


def test_guidance_excludes_a_format() -> None:
    wanted = {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}

    assert refused(**wanted) == "structured_outputs"


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Grammar(kind="regex", text="a(", param="structured_outputs"), "regular expression"),
        (Grammar(kind="lark", text="nonsense", param="structured_outputs"), "grammar"),
        (Grammar(kind="json_schema", text='{"type": 1}', param="tools"), "JSON schema"),
    ],
)
def test_what_cannot_be_compiled_names_its_field(wanted: Grammar, says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"invalid {says}") as caught:
        compile_grammar(wanted)

    assert caught.value.details["param"] == wanted.param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bad_words", ["a"]),
        ("prompt_logprobs", 0),
        ("return_token_ids", True),
        ("chat_template", "{{ messages }}"),
        ("guided_regex", "a"),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "a"}),
        ("use_beam_search", True),
        ("length_penalty", 0.5),
        ("truncation_side", "right"),
        ("echo", True),
        ("documents", [{"text": "a"}]),
        ("logprob_token_ids", [1]),
        ("prompt_embeds", "a"),
        ("return_tokens_as_token_ids", True),
        ("thinking_token_budget", 0),
    ],
)
def test_what_would_change_the_answer_is_not_left_out_in_silence(name: str, value: object) -> None:
    assert refused(**{name: value}) == name


def test_idle_values_of_such_fields_are_nothing() -> None:
    chat(bad_words=[], return_token_ids=False, chat_template=None, guided_json=None)
    chat(use_beam_search=False, length_penalty=1.0, modalities=["text"], functions=[])
    chat(truncation_side="left", echo=False, function_call=None)


def test_stops_and_special_tokens_may_be_shown() -> None:
    asked = chat(include_stop_str_in_output=True, skip_special_tokens=False)
    shown, plain = sampling_of(asked, **SIZES), sampling_of(chat(), **SIZES)

    assert (shown.keeps_stop, shown.skips_special) == (True, False)
    assert (plain.keeps_stop, plain.skips_special) == (False, True)


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "return_tensors", "messages"])
def test_a_template_is_no_callers_program(name: str) -> None:
    """A template with loops in it would hold the replica for as long as it likes."""
    assert refused(chat_template_kwargs={name: "{% for a in b %}{% endfor %}"}) == (
        "chat_template_kwargs"
    )
    body = {"messages": [], "chat_template_kwargs": {name: "x"}}
    with pytest.raises(InvalidRequest):
        decode(json.dumps(body).encode(), TokenizeRequest)


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids"])
@pytest.mark.parametrize("token", [-1, 50, 10**30])
def test_token_ids_are_the_models(name: str, token: int) -> None:
    assert refused(**{name: [3, token]}) == name


def test_no_allowed_token_is_no_answer() -> None:
    assert refused(allowed_token_ids=[]) == "allowed_token_ids"


def test_a_prompt_is_cut_to_some_tokens_or_to_what_fits() -> None:
    assert chat(truncate_prompt_tokens=-1).truncate_prompt_tokens == -1
    assert refused(truncate_prompt_tokens=0) == "truncate_prompt_tokens"


def test_a_priority_is_v2s() -> None:
    assert refused(priority=-1) == "priority"
    assert chat(priority=2).priority == 2


def test_choices_of_all_prompts_are_bounded() -> None:
    body = {"model": "m", "prompt": ["a"] * 1025, "n": 2}

    with pytest.raises(InvalidRequest, match="got 2050"):
        decode(json.dumps(body).encode(), CompletionRequest)


def test_the_narrowest_name_makes_a_session() -> None:
    assert session_of(chat(user="u", prompt_cache_key="k", session_id="s")) == "s"
    assert session_of(chat(user="u", prompt_cache_key="k")) == "k"
    assert session_of(chat(user="u")) == "u"


def test_v2_says_all_of_it_in_one_parameter() -> None:
    said = json.dumps({"stop": ["a", "b"], "temperature": 0.5, "lora_name": "poet", "stream": 1})
    parameters = {"sampling_parameters": said, "temperature": 0.0, "stream": False}

    fields, streams = completion_of(b"x", parameters, model="m")

    assert fields == {
        "model": "m", "prompt": "x", "stop": ["a", "b"], "temperature": 0.0, "stream": True
    }  # fmt: skip
    assert not streams
    assert adapter_of(parameters) == "poet"
    assert adapter_of({"lora_name": "other"}) == "other"
    assert adapter_of({}) == ""


@pytest.mark.parametrize("said", ["{", "[1]", '{"n": 2}', "3"])
def test_what_v2_cannot_say_is_refused(said: str) -> None:
    with pytest.raises(InvalidRequest):
        completion_of(b"x", {"sampling_parameters": said}, model="m")
