"""User classes whose requests have several responses: Triton's examples, rebuilt.

Source: protocol section 4.2; the waiting times are milliseconds in `RepeatInt32`, seconds in
`MockLlm`, as the clients of each send them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from cluster.engines.python import LoadContext
from cluster.errors import EngineFailed, InvalidRequest
from cluster.requests import Parameter
from cluster.tensors import Array


class RepeatInt32:
    """`repeat_int32`: IN INT32 [n], DELAY UINT32 [n], WAIT UINT32 [1] -> n responses OUT INT32 [1]
    and IDX UINT32 [1], where the card has it. Waits DELAY[i] ms before response i, then WAIT."""

    def load(self, context: LoadContext) -> None:
        self._has_index = context.signature.output("IDX") is not None

    def stream(
        self, inputs: dict[str, Array], parameters: dict[str, Parameter]
    ) -> Iterator[dict[str, Array]]:
        values, delays = inputs["IN"], inputs["DELAY"]
        if len(values) != len(delays):
            raise InvalidRequest(
                f"IN and DELAY must have the same length, got {len(values)} and {len(delays)}"
            )
        for index in range(len(values)):
            time.sleep(int(delays[index]) / 1e3)
            response = {"OUT": values[index : index + 1]}
            if self._has_index:
                response["IDX"] = delays[:1] * 0 + index
            yield response
        time.sleep(int(inputs["WAIT"][0]) / 1e3)


class MockLlm:
    """`mock_llm`: PROMPT BYTES, STREAM BOOL -> TEXT, the prompt, again and again.

    Parameters: REPETITION (1), DELAY (seconds before each), FAIL_LAST (an error ends the stream).
    """

    def load(self, context: LoadContext) -> None:
        pass

    def stream(
        self, inputs: dict[str, Array], parameters: dict[str, Parameter]
    ) -> Iterator[dict[str, Array]]:
        text = inputs["PROMPT"]
        if not inputs["STREAM"].any():
            yield {"TEXT": text}
            return
        for _ in range(int(parameters.get("REPETITION", 1))):
            time.sleep(float(parameters.get("DELAY", 0.0)))
            yield {"TEXT": text}
        if parameters.get("FAIL_LAST"):
            raise EngineFailed("An Error Occurred")
