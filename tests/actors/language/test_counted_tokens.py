"""A language model's real replica tells the tokens that a request used, to a door that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest_asyncio

from actors.language.replica import LanguageReplica
from actors.model_replica import ReplicaSetup
from cluster.config.language.settings import LanguageConfig
from cluster.config.model_card import ModelCard
from cluster.config.variant import BatchingConfig
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls
from cluster.protocols.openai.parameters import COUNT_TOKENS, COUNTED, ENDPOINT
from cluster.tensors import Tensor, bytes_array
from tests.contracts.test_language_engines import folder

__all__ = ["folder"]

PROMPT = "abc"
"""Three tokens: the tiny model has one a byte."""


def tiny(folder: Path) -> ReplicaSetup:
    card = {
        "name": "tiny",
        "format": "causal_lm",
        "signature": {
            "inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1]}],
            "outputs": [{"name": "text_output", "datatype": "BYTES", "shape": [1]}],
        },
        "batched": False,
        "decoupled": True,
    }
    return ReplicaSetup(
        variant="tiny",
        card=ModelCard.model_validate(card),
        folder=folder,
        engine="torch",
        device="cpu",
        threads=1,
        is_processed=False,
        batching=BatchingConfig(),
        llm=LanguageConfig.model_validate({"max_num_seqs": 4, "max_model_len": 400}),
    )


@pytest_asyncio.fixture
async def replica(folder: Path, tmp_path: Path) -> AsyncIterator[LanguageReplica]:
    made = LanguageReplica(tiny(folder), metrics_at=tmp_path)
    await made.start()
    yield made
    await made.close()


async def replies(replica: LanguageReplica, text: bytes, **parameters: Any) -> list[Reply]:
    inputs = (Tensor(name="text_input", datatype="BYTES", array=bytes_array([text], (1,))),)
    call = Call(call_id=1, rows=1, left_s=60, inputs=inputs, parameters=parameters)
    found: list[Reply] = []
    async for message in replica.stream(encode_calls([call])):
        found += decode_replies(message)
    return found


def counts(reply: Reply) -> list[int]:
    (found,) = [each.array for each in reply.outputs if each.name == COUNTED]
    return [int(each) for each in np.asarray(found)]


def body(**more: Any) -> bytes:
    asked = {"model": "tiny", "prompt": PROMPT, "max_tokens": 6, "ignore_eos": True}
    return orjson.dumps(asked | more)


COMPLETIONS = {ENDPOINT: "completions"}


async def test_a_whole_answer_has_the_counts_of_its_usage(replica: LanguageReplica) -> None:
    (reply,) = await replies(replica, body(), **COMPLETIONS, **{COUNT_TOKENS: True})

    usage = orjson.loads(bytes(reply.outputs[0].array.item()))["usage"]
    assert counts(reply) == [usage["prompt_tokens"], usage["completion_tokens"]] == [3, 6]


async def test_a_stream_tells_with_every_part_what_was_used_so_far(
    replica: LanguageReplica,
) -> None:
    found = await replies(replica, body(stream=True), **COMPLETIONS, **{COUNT_TOKENS: True})
    of_v2 = await replies(
        replica, PROMPT.encode(), max_tokens=6, ignore_eos=True, **{COUNT_TOKENS: True}
    )

    for parts in (found, of_v2):
        told = [counts(part) for part in parts]
        # The first part may be told late, when all have been made.
        assert told == sorted(told)
        assert told[-1] == [3, 6]


async def test_who_does_not_ask_is_told_nothing(replica: LanguageReplica) -> None:
    found = await replies(replica, body(stream=True), **COMPLETIONS)

    assert {output.name for reply in found for output in reply.outputs} == {"text_output"}
