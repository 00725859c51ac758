"""`ModelInfer` as most callers ask for it: read, answered and written by the short ways.

The door's own Python a call, 64 under way: 73 -> 42 µs (loadtests/TRIED.md).
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from functools import partial

from google.protobuf.message import DecodeError

from actors.front_door import FrontDoor
from actors.listeners.quick_models import QuickModels
from cluster.errors import SquadronError
from cluster.protocols import v2_grpc
from cluster.protocols.grpc_schema import message_class
from cluster.protocols.v2_grpc_quick import QuickRpcDecoder, QuickRpcEncoder
from cluster.requests import InferenceRequest, InferenceResponse

_Request = message_class("inference.ModelInferRequest")

Outcome = InferenceResponse | SquadronError


class QuickRpc:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._models = QuickModels(door, QuickRpcDecoder)
        self._encoder = QuickRpcEncoder()

    def decode(self, data: bytes) -> tuple[InferenceRequest, int] | None:
        """The request and its rows; None for what takes a closer look, or is wrong."""
        try:
            message = _Request.FromString(data)
        except DecodeError:
            return None
        version = message.model_version
        decoder = self._models.decoder(message.model_name, version)
        return None if decoder is None else decoder.decode(message, version)

    async def infer(self, asked: InferenceRequest, rows: int) -> InferenceResponse:
        """See `FrontDoor.infer`."""
        future: asyncio.Future[Outcome] = get_running_loop().create_future()
        ticket = self._door.begin(asked, rows, partial(_settle, future))
        if ticket is None:
            return await self._door.infer(asked)
        try:
            outcome = await future
        except asyncio.CancelledError:
            self._door.cancel(ticket, asked)
            raise
        if isinstance(outcome, InferenceResponse):
            return outcome
        try:
            raise outcome
        finally:
            # The error's traceback holds this frame: see `Dispatcher.run`.
            del outcome, future, ticket

    def encode(self, answer: InferenceResponse, asked: InferenceRequest) -> bytes:
        """The answer to what `decode` found."""
        encoded = self._encoder.encode(answer, asked)
        return v2_grpc.encode_infer(answer, asked) if encoded is None else encoded


def _settle(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
