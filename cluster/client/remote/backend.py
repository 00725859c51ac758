"""A model of a server, by Open Inference Protocol V2 over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from cluster.client.remote.coding import (
    JSON_LENGTH,
    Body,
    decode_answer,
    encode_call,
    pieces,
    signature_of,
)
from cluster.client.remote.shared_inputs import SharedInputs
from cluster.errors import EngineFailed, InvalidRequest, Unsupported
from cluster.requests import Parameter
from cluster.tensors import Array, Signature

if TYPE_CHECKING:
    from cluster.client.remote.http import HttpServer


class HttpBackend:
    """See `Backend`. `model` is NAME or NAME/VERSION as the server knows it.

    Raises: ModelNotFound, and what `HttpServer` raises.
    """

    is_remote = True

    def __init__(self, server: HttpServer, model: str, shared: SharedInputs | None = None) -> None:
        name, _, version = model.partition("/")
        self.server = server
        self._shared = shared
        self.path = f"/v2/models/{quote(name, safe='')}"
        if version:
            self.path += f"/versions/{quote(version, safe='')}"
        self.metadata: dict[str, Any] = server.get(self.path).json()
        self.config: dict[str, Any] = server.get(f"{self.path}/config").json()
        told = self.config.get("parameters", {}).get("outputs_on_request", {})
        self._signature = signature_of(self.metadata, str(told.get("string_value", "")))
        self._is_closed = False

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def is_batched(self) -> bool:
        return int(self.config.get("max_batch_size", 0)) >= 1

    @property
    def signature(self) -> Signature:
        return self._signature

    def infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        if self._shared is None:
            return self._ask(inputs, outputs, {})
        with self._shared.placed(inputs) as places:
            return self._ask(inputs, outputs, places)

    def _ask(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        places: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Array]:
        path, body = self.request(inputs, outputs, places)
        response = self.server.send("POST", path, body)
        return decode_answer(response.content, response.headers.get(JSON_LENGTH))

    def request(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        places: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> tuple[str, Body]:
        """Path and body of the call. Raises: EngineFailed after `close`."""
        if self._is_closed:
            raise EngineFailed(f"model {self.name!r} was unloaded")
        compression = self.server.settings.compression
        body = encode_call(inputs, outputs, places=places, compression=compression)
        return f"{self.path}/infer", body

    def generate(
        self, prompt: str | Array, parameters: Mapping[str, Parameter], *, use_cache: bool
    ) -> Iterator[str | int]:
        """See `Generates`; by the server's `generate_stream`.

        Raises: Unsupported for a model that gives neither text nor tokens, and without `use_cache`.
        """
        if not use_cache:
            raise Unsupported(
                "use_cache=False works embedded only: a server's language models always keep keys "
                "and values"
            )
        inputs = self.signature.inputs
        if len(inputs) != 1 or (inputs[0].datatype == "BYTES") != isinstance(prompt, str):
            takes = ", ".join(f"{spec.name} ({spec.datatype})" for spec in inputs)
            raise InvalidRequest(f"{self.name} takes {takes}, which is no such prompt")
        given = prompt if isinstance(prompt, str) else prompt.ravel().tolist()
        content = orjson.dumps({inputs[0].name: given, "parameters": dict(parameters)})
        headers = {"Content-Type": "application/json"}
        body = Body(content=content, headers=headers)
        response = self.server.send("POST", f"{self.path}/generate_stream", body)
        yield from pieces(response.content, self.name)

    def close(self) -> None:
        """The server goes on serving the model; only this handle ends."""
        self._is_closed = True
