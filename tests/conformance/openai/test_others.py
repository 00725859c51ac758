"""Every other OpenAI and vLLM endpoint, and bodies that are no requests."""

from __future__ import annotations

import base64
import json
import os
import shlex
import struct
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc as grpcclient

from cluster.config.store import ModelStore
from loadtests.language.leaving import france, metric
from tests.conformance.openai.conftest import MODEL
from tests.e2e.running import Running


def complete(client: openai.OpenAI, prompt: Any = "Once upon a time", **fields: Any) -> Any:
    fields = {"model": "assistant", "temperature": 0, "max_tokens": 8} | fields
    return client.completions.create(prompt=prompt, **fields)


def logprobs_of_transformers(root: Path, ids: list[int]) -> list[float]:
    """Of every token after the first one."""
    import torch
    from transformers import AutoModelForCausalLM

    store = ModelStore(Path(os.environ.get("SQUADRON_MODEL_STORE") or root / "models"))
    model = AutoModelForCausalLM.from_pretrained(store.folder(MODEL), dtype=torch.float32)
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
    return [float(row[token]) for row, token in zip(logprobs, ids[1:], strict=False)]


@pytest.fixture
def http(llm: Running) -> Any:
    with httpx.Client(base_url=llm.http, timeout=120) as made:
        yield made


def refused(http: httpx.Client, path: str, content: bytes, **headers: str) -> dict[str, Any]:
    sent = {"content-type": "application/json"} | headers
    answer = http.post(path, content=content, headers=sent)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_the_call_that_serve_shows_is_answered(llm: Running) -> None:
    answer = subprocess.run(
        shlex.split(llm.ready["try"]), capture_output=True, text=True, timeout=120, check=True
    )

    assert json.loads(answer.stdout)["choices"][0]["text"].startswith(" Paris")


def test_models_are_listed(client: openai.OpenAI) -> None:
    found = client.models.list().data

    assert [each.id for each in found] == ["assistant", "text-embedder"]
    assert {each.object for each in found} == {"model"}
    assert found[0].max_model_len == 1024  # type: ignore[attr-defined]


def test_a_model_is_told_by_name(client: openai.OpenAI) -> None:
    assert client.models.retrieve("assistant").id == "assistant"


def test_an_unknown_model_is_not_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_completion_has_the_published_shape(client: openai.OpenAI) -> None:
    found = complete(client)

    assert found.id.startswith("cmpl-")
    assert found.object == "text_completion"
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 8


def test_a_completion_has_sixteen_tokens_unless_it_says(client: openai.OpenAI) -> None:
    found = client.completions.create(model="assistant", prompt="Once upon", temperature=0)

    assert found.usage is not None
    assert found.usage.completion_tokens == 16


def test_several_prompts_are_numbered_n_by_n(client: openai.OpenAI) -> None:
    found = complete(client, ["Once upon", "The capital of"], n=2)

    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    first, second, third, _ = (choice.text for choice in found.choices)
    assert first == second == complete(client, "Once upon").choices[0].text
    assert third == complete(client, "The capital of").choices[0].text


def test_token_ids_are_a_prompt(client: openai.OpenAI, http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"model": "assistant", "prompt": "Once upon a time"}).json()

    assert complete(client, ids["tokens"]).choices[0].text == complete(client).choices[0].text
    assert complete(client, [ids["tokens"]]).choices[0].text == complete(client).choices[0].text


def test_echo_begins_with_the_prompt(client: openai.OpenAI) -> None:
    plain = complete(client).choices[0].text

    assert complete(client, echo=True).choices[0].text == "Once upon a time" + plain


def test_echo_with_logprobs_scores_the_prompt(
    client: openai.OpenAI, http: httpx.Client, root: Path
) -> None:
    """As evaluation harnesses ask: no new tokens, every token's log-probability."""
    text = "The capital of France is Paris. Bananas are blue and heavy."
    alone = complete(client, text, echo=True, logprobs=2, max_tokens=0)
    choice = alone.choices[0]
    ids = http.post("/tokenize", json={"model": "assistant", "prompt": text}).json()["tokens"]
    expected = logprobs_of_transformers(root, ids)

    assert (choice.text, alone.usage.completion_tokens) == (text, 0)
    assert "".join(choice.logprobs.tokens) == text
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.top_logprobs[0] is None
    np.testing.assert_allclose(choice.logprobs.token_logprobs[1:], expected, atol=2e-3)

    more = complete(client, text, echo=True, logprobs=2, max_tokens=4).choices[0]
    np.testing.assert_allclose(
        more.logprobs.token_logprobs[1 : 1 + len(expected)], expected, atol=2e-3
    )
    assert len(more.logprobs.tokens) == 1 + len(expected) + 4
    streamed = list(complete(client, text, echo=True, logprobs=2, max_tokens=4, stream=True))
    tokens = [token for each in streamed for token in each.choices[0].logprobs.tokens]
    assert tokens == more.logprobs.tokens


def test_completion_logprobs_are_lists(client: openai.OpenAI) -> None:
    found = complete(client, logprobs=2).choices[0]

    assert "".join(found.logprobs.tokens) == found.text
    assert len(found.logprobs.token_logprobs) == 8
    assert all(len(each) == 2 for each in found.logprobs.top_logprobs)
    assert found.logprobs.text_offset[0] == 0


def test_a_streamed_completion_says_the_same(client: openai.OpenAI) -> None:
    pieces = list(complete(client, stream=True))

    assert "".join(each.choices[0].text for each in pieces) == complete(client).choices[0].text
    assert pieces[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("field", "value"),
    [("suffix", "end"), ("best_of", 3), ("logprobs", 21), ("prompt", []), ("prompt", "")],
)
def test_what_completions_do_not_have_is_refused(
    client: openai.OpenAI, field: str, value: object
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, **{field: value})

    assert caught.value.param == field


def test_a_token_out_of_vocabulary_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="out of vocabulary"):
        complete(client, [1, 999_999])


@pytest.mark.slice
def test_embeddings_by_default_are_those_asked_for_as_floats(client: openai.OpenAI) -> None:
    default = client.embeddings.create(model="text-embedder", input=["a cat", "a dog"])
    floats = client.embeddings.create(
        model="text-embedder", input=["a cat", "a dog"], encoding_format="float"
    )

    assert [each.index for each in default.data] == [0, 1]
    assert len(default.data[0].embedding) == 384
    np.testing.assert_allclose(default.data[1].embedding, floats.data[1].embedding, rtol=1e-6)


def test_base64_is_little_endian_floats(http: httpx.Client) -> None:
    asked = {"model": "text-embedder", "input": "a cat", "encoding_format": "base64"}
    text = http.post("/v1/embeddings", json=asked).json()["data"][0]["embedding"]
    floats = struct.unpack("<384f", base64.b64decode(text))

    assert abs(sum(each * each for each in floats) - 1) < 1e-4


def test_embedding_usage_counts_tokens(client: openai.OpenAI) -> None:
    usage = client.embeddings.create(model="text-embedder", input="a cat").usage

    assert usage.prompt_tokens == usage.total_tokens == 4


def test_a_text_that_is_too_long_is_refused_or_cut(client: openai.OpenAI) -> None:
    takes = client.models.retrieve("text-embedder").max_model_len  # type: ignore[attr-defined]
    long, longer = "cat " * (takes + 1), "cat " * (takes + 50) + "dog"
    with pytest.raises(openai.BadRequestError, match=f"at most {takes}") as caught:
        client.embeddings.create(model="text-embedder", input=["a cat", long])
    assert caught.value.param == "input"

    cut = [
        client.embeddings.create(
            model="text-embedder", input=text, extra_body={"truncate_prompt_tokens": -1}
        )
        for text in (long, longer)
    ]
    assert [each.usage.prompt_tokens for each in cut] == [takes, takes]
    np.testing.assert_allclose(cut[0].data[0].embedding, cut[1].data[0].embedding, rtol=1e-5)


def test_dimensions_cut_and_normalise(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="text-embedder", input="a cat", dimensions=64)

    assert len(found.data[0].embedding) == 64
    assert abs(float(np.linalg.norm(found.data[0].embedding)) - 1) < 1e-4


@pytest.mark.parametrize("value", [[], [[1, 2]], 7, [""]])
def test_an_input_that_is_no_text_is_refused(client: openai.OpenAI, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="text-embedder", input=value)

    assert caught.value.param == "input"


def test_a_language_model_embeds_nothing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no embeddings"):
        client.embeddings.create(model="assistant", input="a cat")


def test_scores_are_cosines(http: httpx.Client) -> None:
    asked = {"model": "text-embedder", "text_1": "a cat", "text_2": ["a kitten", "tax law"]}
    found = http.post("/score", json=asked).json()

    near, far = (each["score"] for each in found["data"])
    assert near > 0.5 > far
    assert http.post("/v1/score", json=asked).json()["data"] == found["data"]


def test_rerank_orders_documents(http: httpx.Client) -> None:
    asked = {"model": "text-embedder", "query": "a cat", "documents": ["tax law", "a kitten"]}
    found = http.post("/v1/rerank", json=asked | {"top_n": 1}).json()["results"]

    assert [each["index"] for each in found] == [1]
    assert found[0]["document"] == {"text": "a kitten"}


def test_tokens_come_back_as_text(http: httpx.Client) -> None:
    found = http.post("/tokenize", json={"model": "assistant", "prompt": "Hallo Welt 日本"}).json()
    back = http.post("/detokenize", json={"model": "assistant", "tokens": found["tokens"]}).json()

    assert found["count"] == len(found["tokens"])
    assert found["max_model_len"] == 1024
    assert back == {"prompt": "Hallo Welt 日本"}


def test_messages_are_tokenised_as_chat_does(client: openai.OpenAI, http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    found = http.post("/tokenize", json={"model": "assistant", "messages": messages}).json()

    assert found["count"] == 37


def test_health_and_version(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200
    assert http.get("/ping").status_code == 200
    assert http.get("/version").json()["version"]
    assert http.get("/load").json() == {"server_load": 0}


def test_an_unknown_path_below_v1_has_openais_shape(http: httpx.Client) -> None:
    answer = http.post("/v1/nothing")

    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


def test_a_wrong_method_has_openais_shape(http: httpx.Client) -> None:
    answer = http.get("/v1/chat/completions")

    assert answer.status_code == 405
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_bodies_that_are_no_requests_are_refused(http: httpx.Client) -> None:
    path = "/v1/chat/completions"

    assert "JSON" in refused(http, path, b"{")["message"]
    assert "JSON" in refused(http, path, b'{"model": "\xff\xfe"}')["message"]
    assert "object" in refused(http, path, b"[]")["message"]
    assert refused(http, path, b'{"model": "assistant"}')["param"] == "messages"
    assert "Content-Type" in refused(http, path, b"{}", **{"content-type": "text/plain"})["message"]


@pytest.mark.slice
def test_a_prompt_of_ten_megabytes_is_refused(http: httpx.Client) -> None:
    asked = b'{"model": "assistant", "prompt": "' + b"word " * 2_000_000 + b'"}'

    assert refused(http, "/v1/completions", asked)["code"] == "context_length_exceeded"


CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
SAY = b'{"model": "assistant", "messages": [{"role": "user", "content": "a"}], '
TEXT = b'{"model": "assistant", "prompt": "%s"}'
BAD = {
    "a prompt that is too long": (
        COMPLETE,
        b'{"model":"assistant","prompt":"%s"}' % (b"a " * 4000),
    ),
    "ten megabytes": (COMPLETE, b'{"model":"assistant","prompt":"%s"}' % (b"word " * 2_000_000)),
    "no schema": (
        CHAT,
        SAY + b'"response_format": {"type": "json_schema", "json_schema": {"name": "x", '
        b'"schema": {"type": "objct"}}}}',
    ),
    "an unknown model": (CHAT, SAY.replace(b"assistant", b"nobody") + b'"n": 1}'),
    "negative max_tokens": (CHAT, SAY + b'"max_tokens": -1}'),
    "what is not UTF-8": (COMPLETE, b'{"model": "assistant", "prompt": "\xff\xfe"}'),
    "half a surrogate pair": (COMPLETE, b'{"model": "assistant", "prompt": "\\ud800"}'),
    "no JSON": (CHAT, b"{"),
}


@pytest.mark.slice
@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_does_not_reach_the_engine(
    http: httpx.Client, llm: Running, what: str
) -> None:
    path, content = BAD[what]
    before = metric(llm, "squadron_llm_prompt_tokens_total")

    answer = http.post(path, content=content, headers={"content-type": "application/json"})

    assert answer.status_code == (404 if what == "an unknown model" else 400), answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert metric(llm, "squadron_llm_prompt_tokens_total") == before
    assert france(llm) == "The capital of France is Paris."


def test_a_stream_ends_with_done_and_has_its_media_type(http: httpx.Client) -> None:
    asked = {"model": "assistant", "prompt": "a", "max_tokens": 2, "stream": True}
    answer = http.post("/v1/completions", json=asked)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-squadron-variant"] == "assistant"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_request_id_comes_back(http: httpx.Client) -> None:
    asked = {"model": "assistant", "prompt": "a", "max_tokens": 1}
    answer = http.post("/v1/completions", json=asked, headers={"x-request-id": "mine-1"})

    assert answer.headers["x-request-id"] == "mine-1"


@pytest.mark.slice
def test_v2_generates_the_same_text(client: openai.OpenAI, http: httpx.Client) -> None:
    asked = {"text_input": "Once upon a time", "max_tokens": 8, "temperature": 0}
    whole = http.post("/v2/models/assistant/generate", json=asked).json()
    stream = http.post("/v2/models/assistant/generate_stream", json=asked).text

    expected = complete(client).choices[0].text
    assert whole["text_output"] == expected
    pieces = [httpx.Response(200, content=part[6:]).json() for part in stream.split("\n\n") if part]
    assert "".join(each["text_output"] for each in pieces) == expected


def test_v2_grpc_streams_the_same_text(client: openai.OpenAI, llm: Running) -> None:
    found: list[str] = []
    tensor = grpcclient.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"Once upon a time"], dtype=object))
    with grpcclient.InferenceServerClient(llm.grpc) as triton:

        def take(result: Any, error: Any) -> None:
            assert error is None
            found.append(result.as_numpy("text_output")[0].decode())

        triton.start_stream(take)
        triton.async_stream_infer(
            "assistant", [tensor], parameters={"max_tokens": 8, "temperature": 0.0}
        )
        triton.stop_stream()

    assert "".join(found) == complete(client).choices[0].text
