"""Reads requests from the bytes of one connection: a C parser, with sizes and times bounded."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

import httptools

from actors.listeners.http1.wire import HEADER_NAMES, RepeatedHead, lower_name
from actors.listeners.http_messages import HttpRequest
from cluster.config.server import LimitsConfig
from cluster.errors import InvalidRequest, PayloadTooLarge, SquadronError, Unsupported

MAX_HEADER_BYTES = 64 * 1024
MAX_CHUNKS = 65_536
"""Of a body (protocol section 5.7): a chunk a byte costs more to read than the bytes do."""
MAX_FRAMING_BYTES = 512 * 1024
"""What the parser may hold or skip of one request: lines without end never reach a callback. A
read brings at most 256 KiB, some of which may belong to the request before."""
FRAMING_BYTES_PER_CHUNK = 16
MIN_BODY_BYTES_PER_S = 1024
"""A body that comes slower holds a connection and its memory for nothing."""
FREE_BYTES = 64 * 1024
"""Bodies up to here that came in one piece are not counted once they are being answered:
`max_in_flight` bounds what they come to."""


class HttpReader(ABC):
    """`feed` takes what came; `received` gets each request when it is whole."""

    def __init__(self, limits: LimitsConfig) -> None:
        self.limits = limits
        self.is_reading = False
        self.is_local = False
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._data = b""
        self._body: list[bytes] = []
        self._repeated: RepeatedHead | None = None
        self._reset()

    @abstractmethod
    def received(self, request: HttpRequest, *, keeps_alive: bool, reserved_bytes: int = 0) -> None:
        """`reserved_bytes` of it were told to `reserve`."""

    @abstractmethod
    def watch(self, patience_s: float | None) -> None:
        """How long to wait for the rest of the request."""

    @abstractmethod
    def reserve(self, num_bytes: int) -> None:
        """Of the body being read. Raises: Overloaded."""

    @abstractmethod
    def enlarge(self, num_bytes: int) -> None:
        """Of the request being answered: its body grew. Raises: Overloaded."""

    @abstractmethod
    def invite(self) -> None:
        """The caller waits to be told to send the body: see `begin_body`."""

    def feed(self, data: bytes) -> None:
        """Raises: SquadronError; what comes after it has no meaning any more."""
        repeated = self._repeated
        if repeated is not None and repeated.fits(data) and not self.is_reading:
            # What was parsed once need not be parsed again.
            self.received(
                HttpRequest(
                    method=repeated.method,
                    path=repeated.path,
                    headers=repeated.headers,
                    body=data[len(repeated.head) :],
                    is_local=self.is_local,
                ),
                keeps_alive=True,
            )
            return
        self._data = data
        try:
            self._parser.feed_data(data)
            if self.is_reading:
                self._count_unfinished(len(data))
        except httptools.HttpParserUpgrade:
            raise InvalidRequest("protocol upgrades are not supported") from None
        except httptools.HttpParserCallbackError as error:
            known = error.__context__
            if isinstance(known, SquadronError):
                raise known from None
            raise InvalidRequest("malformed request") from None
        except httptools.HttpParserError as error:
            raise InvalidRequest(f"malformed HTTP request: {error}") from None

    def forget(self) -> None:
        """Let go of what was read: the parser and this object hold each other until the garbage
        collector comes by, and an idle connection needs nothing of what it once carried."""
        self._data, self._body = b"", []

    def cut_off(self) -> InvalidRequest:
        """What is told to a caller that ended in the middle of a request."""
        size = self._headers.get("content-length", "the rest of the head or of the chunks")
        expected = f"{size} bytes of body" if self.has_length else size
        return InvalidRequest(
            f"the request was cut off: expected {expected}, got {self._body_bytes} bytes of body"
        )

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body = []
        self._body_bytes = 0
        self._num_chunks = 0
        self._num_read = 0
        self._counted_bytes = 0
        self._body_began_s = 0.0
        self._has_head = False
        self.has_length = False
        self.is_reading = False

    # Callbacks of the parser, in their order.

    def on_message_begin(self) -> None:
        self._reset()
        self.is_reading = True
        self.watch(self.limits.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        if self._has_head:
            # A trailer: what was decided by the headers is not decided anew (RFC 9110, 6.5.1).
            return
        known = HEADER_NAMES.get(name) or lower_name(name)
        text = value.decode("latin-1")
        if known in self._headers:
            text = self._joined(known, text)
        self._headers[known] = text

    def _joined(self, name: str, text: str) -> str:
        """Of a header that is there already (RFC 9110, 5.3). Raises: InvalidRequest."""
        if name == "host":
            raise InvalidRequest("the request has more than one Host header")
        return f"{self._headers[name]}{'; ' if name == 'cookie' else ', '}{text}"

    def on_headers_complete(self) -> None:
        self._has_head = True
        if "host" not in self._headers and not self._is_old():
            # RFC 9112, 3.2. Two of them: see `_joined`.
            raise InvalidRequest("an HTTP/1.1 request needs a Host header")
        self._body_began_s = self._loop.time()
        coding = self._headers.get("transfer-encoding", "chunked").strip().lower()
        if coding != "chunked":
            # RFC 9112, 6.1: a coding that is not understood is refused, not looked through.
            raise Unsupported(f"transfer-encoding {coding[:60]!r} is not supported, only 'chunked'")
        size = self._headers.get("content-length", "")
        if size.isdigit():
            self.has_length = True
            if int(size) > self.limits.max_body_bytes:
                raise self._too_large(int(size))
            self._count_body(int(size))
        if self._headers.get("expect", "").lower() == "100-continue" and not self._is_old():
            self.invite()

    def begin_body(self) -> None:
        """The caller is told to send the body now; its time begins."""
        self._body_began_s = self._loop.time()
        self.watch(self.limits.header_timeout_s)

    def on_chunk_header(self) -> None:
        self._num_chunks += 1
        if self._num_chunks > MAX_CHUNKS:
            raise InvalidRequest(f"the body has more than {MAX_CHUNKS} chunks")

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes > self.limits.max_body_bytes:
            raise self._too_large(self._body_bytes)
        self._count_body(self._body_bytes)
        self._body.append(part)
        patience_s = self.limits.header_timeout_s
        earned_s = self._body_bytes / MIN_BODY_BYTES_PER_S
        spent_s = self._loop.time() - self._body_began_s
        self.watch(min(patience_s, max(0.0, patience_s + earned_s - spent_s)))

    def on_message_complete(self) -> None:
        self.is_reading = False
        path = self._path()
        method = self._parser.get_method()
        request = HttpRequest(
            method="POST" if method == b"POST" else method.decode("latin-1"),
            path=path,
            headers=self._headers,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            is_local=self.is_local,
            reserve=self.enlarge if "content-encoding" in self._headers else None,
        )
        # RFC 9112 (9.3) lets us choose for callers of HTTP/1.0; they know no chunks, so that a
        # stream has to end with its connection anyway.
        keeps_alive = self._parser.should_keep_alive()
        if keeps_alive and "connection" in self._headers and self._is_old():
            keeps_alive = False
        self._remember(request, keeps_alive=keeps_alive)
        self.forget()
        reserved_bytes, self._counted_bytes = self._counted_bytes, 0
        self.received(request, keeps_alive=keeps_alive, reserved_bytes=reserved_bytes)

    def _path(self) -> str:
        """Of the request's target; proxies' absolute form is one too (RFC 9112, 3.2.2)."""
        url = self._url
        if not url.startswith(b"/") and b"://" in url:
            url = b"/" + url.partition(b"://")[2].partition(b"/")[2]
        return url.partition(b"?")[0].decode("latin-1")

    def _is_old(self) -> bool:
        version: str = self._parser.get_http_version()
        return version == "1.0"

    def _remember(self, request: HttpRequest, *, keeps_alive: bool) -> None:
        """A request that came in one piece: clients send the same head again and again."""
        data = self._data
        head_bytes = len(data) - len(request.body)
        is_whole = data.startswith((b"POST ", b"GET ")) and data.endswith(request.body)
        is_plain = self._num_chunks == 0 and "content-length" in request.headers
        if keeps_alive and is_whole and is_plain and data[:head_bytes].endswith(b"\r\n\r\n"):
            if data.find(b"\r\n\r\n") == head_bytes - 4:
                self._repeated = RepeatedHead(
                    data[:head_bytes], len(data), request.method, request.path, request.headers
                )
        else:
            self._repeated = None

    def _count_unfinished(self, num_bytes: int) -> None:
        """Of a request that is not whole yet: how many there are is bounded by nothing else.
        Raises: PayloadTooLarge; Overloaded."""
        self._num_read += num_bytes
        allowed = MAX_FRAMING_BYTES + FRAMING_BYTES_PER_CHUNK * self._num_chunks
        if self._num_read - self._body_bytes - self._header_bytes > allowed:
            raise PayloadTooLarge(f"the request has a line of more than {MAX_HEADER_BYTES} bytes")
        self._count(self._body_bytes if self.has_length else self._num_read)

    def _count_header(self, num_bytes: int) -> None:
        self._header_bytes += num_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise PayloadTooLarge(f"headers are larger than {MAX_HEADER_BYTES} bytes")

    def _count_body(self, num_bytes: int) -> None:
        """Of the request being read. Raises: Overloaded."""
        if num_bytes > FREE_BYTES:
            self._count(num_bytes)

    def _count(self, num_bytes: int) -> None:
        more = num_bytes - self._counted_bytes
        if more > 0:
            self.reserve(more)
            self._counted_bytes = num_bytes

    def _too_large(self, num_bytes: int) -> PayloadTooLarge:
        limit = self.limits.max_body_bytes
        return PayloadTooLarge(f"the body has {num_bytes} bytes, at most {limit} are allowed")
