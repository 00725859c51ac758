"""What a text may have in tokens, by OpenAI's rule (refused) and vLLM's field (cut)."""

from __future__ import annotations

import json

import pytest

from cluster.errors import InvalidRequest
from cluster.protocols.openai.embeddings import (
    EmbeddingRequest,
    RerankRequest,
    ScoreRequest,
    counted,
    pairs,
    rerank_object,
)
from cluster.protocols.openai.requests import decode


def asked(truncate: int | None = None) -> EmbeddingRequest:
    return EmbeddingRequest(model="m", input="", truncate_prompt_tokens=truncate)


def test_texts_that_fit_are_counted() -> None:
    assert counted([3, 128], 128, asked()) == 131
    assert counted([3, 500], 0, asked()) == 503
    assert counted([], 128, asked()) == 0


def test_a_longer_text_is_refused_with_which_and_how_long() -> None:
    with pytest.raises(InvalidRequest, match="text 1 has 129 tokens, `m` takes at most 128") as got:
        counted([3, 129], 128, asked())

    assert got.value.details["param"] == "input"


def test_the_caller_may_have_it_cut() -> None:
    assert counted([3, 129], 128, asked(-1)) == 131
    assert counted([3, 129], 128, asked(128)) == 131


@pytest.mark.parametrize("wrong", [0, -2, 64, 129])
def test_other_cuts_are_refused_with_what_is_allowed(wrong: int) -> None:
    with pytest.raises(InvalidRequest, match=f"must be -1 or 128 .*, got {wrong}") as got:
        counted([3], 128, asked(wrong))

    assert got.value.details["param"] == "truncate_prompt_tokens"


def score(**sides: object) -> ScoreRequest:
    return decode(json.dumps({"model": "m", **sides}).encode(), ScoreRequest)


def test_the_sides_of_a_score_have_any_of_vllms_names() -> None:
    expected = (["a", "a"], ["b", "c"])

    assert pairs(score(text_1="a", text_2=["b", "c"])) == expected
    assert pairs(score(queries="a", documents=["b", "c"])) == expected
    assert pairs(score(data_1="a", data_2=["b", "c"])) == expected


@pytest.mark.parametrize(
    "sides",
    [{}, {"text_1": "a"}, {"text_1": "a", "text_2": "b", "queries": "a", "documents": "b"}],
)
def test_both_sides_of_a_score_are_needed_once(sides: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="text_1 and text_2 are needed"):
        pairs(score(**sides))


def test_documents_are_texts_or_have_one_and_all_are_told_unless_some_are_wanted() -> None:
    body = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 0}
    asked = decode(json.dumps(body).encode(), RerankRequest)
    told = rerank_object([0.1, 0.9], asked, answer_id="r", num_tokens=3)

    assert [each["document"]["text"] for each in told["results"]] == ["b", "a"]


def test_documents_are_held_to_it_too() -> None:
    body = RerankRequest(model="m", query="", documents=[""])
    with pytest.raises(InvalidRequest, match="text 0 has 200 tokens"):
        counted([200, 3], 128, body)
