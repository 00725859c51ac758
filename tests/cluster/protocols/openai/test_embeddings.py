"""What a text may have in tokens, by OpenAI's rule (refused) and vLLM's field (cut)."""

from __future__ import annotations

import pytest

from cluster.errors import InvalidRequest
from cluster.protocols.openai.embeddings import EmbeddingRequest, RerankRequest, counted


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


def test_documents_are_held_to_it_too() -> None:
    body = RerankRequest(model="m", query="", documents=[""])
    with pytest.raises(InvalidRequest, match="text 0 has 200 tokens"):
        counted([200, 3], 128, body)
