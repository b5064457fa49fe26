"""The way to the server: transport, proof of the caller, calls that are repeated and streams that go on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from pyqwest import Client as HTTPClient
from pyqwest import HTTPTransport, HTTPVersion, SyncClient, SyncHTTPTransport

from hodei._failures import Failure, PinMismatch, failure_of, translate
from hodei._gen.hodei.v1.auth_service_connect import AuthServiceClient
from hodei._portal import CLOSED
from hodei._raw import AsyncRaw, Raw
from hodei._retry import Attempts, Link
from hodei._security import CONNECT_TIMEOUT, Security
from hodei._token import AccessToken
from hodei._version import __version__
from hodei.errors import ConfigurationError, WaitTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from connectrpc.request import RequestContext
    from pyqwest import Request, Response, Transport

    from hodei._config import Config

_Q = TypeVar("_Q")
_R = TypeVar("_R")
_R_contra = TypeVar("_R_contra", contravariant=True)
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

# The server sends something on every stream each 15 seconds: one that is silent for so long is dead.
_SILENCE = 45.0

_LARGEST_ANSWER = 64 << 20

_STUB_OPTIONS: dict[str, Any] = {
    "send_compression": None,
    "accept_compression": (),
    "read_max_bytes": _LARGEST_ANSWER,
}


class Cursor(Protocol[_R_contra, _T_co]):
    """What a stream has come to. It is opened again from here when it breaks."""

    @property
    def over(self) -> bool:
        """Whether the server has said that there is no more."""
        ...

    def take(self, message: _R_contra, /) -> _T_co:
        """Go on after a message, and return what it has."""
        ...

    def starts_over(self, error: ConnectError, /) -> bool:
        """Report whether the place to go on from is lost, and the stream begins anew."""
        ...


class Connection:
    """The connection of a client to its server. It belongs to one event loop."""

    def __init__(self, config: Config, call_timeout: float | None) -> None:
        self.config = config
        self.call_timeout = call_timeout
        self.link = Link()
        self.security = Security(config)
        self._closed = False
        self._transport: HTTPTransport | _PinnedTransport
        if self.security.pinned:
            self._transport = _PinnedTransport(self)
        else:
            self._transport = self.transport()
        http = HTTPClient(cast("Transport", self._transport))
        self.token: AccessToken | None = None
        if config.token or config.token_file:
            bare = AuthServiceClient(config.url, http_client=http, interceptors=[_Interceptor(self)], **_STUB_OPTIONS)
            self.token = AccessToken(config, bare.exchange_token)
            self.link.renewable = self.token.renewable
        proving = _Interceptor(self, self.token)
        self.raw = AsyncRaw(
            lambda stub: stub(config.url, http_client=http, interceptors=[proving], **_STUB_OPTIONS),
        )

    def transport(self) -> HTTPTransport:
        """Make the transport. With a pin this waits for the server."""
        return self._made(HTTPTransport)

    def sync_raw(self, token: Callable[[], str]) -> tuple[Raw, SyncHTTPTransport]:
        """Make the generated clients that block, with a transport of their own."""
        try:
            transport = self._made(SyncHTTPTransport)
        except (ConnectionError, PinMismatch) as cause:  # with a pin, the server is asked for its CA
            error = ConnectError(Code.UNAVAILABLE, str(cause))
            error.__cause__ = cause
            raise translate(error, self.config) from cause
        http, proving = SyncClient(transport), _SyncInterceptor(self, token)
        return Raw(
            lambda stub: stub(self.config.url, http_client=http, interceptors=[proving], **_STUB_OPTIONS)
        ), transport

    def _made(self, kind: Callable[..., _T]) -> _T:
        try:
            return kind(
                http_version=HTTPVersion.HTTP2,
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=_SILENCE,
                follow_redirects=False,
                enable_otel=False,
                enable_gzip=False,
                enable_brotli=False,
                enable_zstd=False,
                **self.security.options(),
            )
        except (ValueError, RuntimeError) as error:
            raise ConfigurationError(f"{self._files()} cannot be used: {error}") from error

    def _files(self) -> str:
        """Name what a transport is made of, for people."""
        names = [f"the CA {self.config.ca or self.config.ca_pin}"] if self.config.ca or self.config.ca_pin else []
        if self.config.cert:
            names.append(f"the client certificate {self.config.cert} with the key {self.config.key}")
        return " or ".join(names) or "the CAs that this machine trusts"

    def check_open(self) -> None:
        """Refuse calls of a client that was closed."""
        if self._closed:
            raise ConfigurationError(CLOSED)

    async def close(self) -> None:
        """Close the connections. Calls under way end with an error."""
        self._closed = True
        if self.token is not None:
            self.token.close()
        await self._transport.aclose()

    def _attempts(self) -> Attempts:
        return Attempts(self.link, lambda error: translate(error, self.config))

    async def call(self, method: Callable[[_Q], Awaitable[_R]], request: _Q) -> _R:
        """Make a call that is safe to repeat, until it succeeds, fails for good, or the time for it is over."""
        self.check_open()
        attempts = self._attempts()
        try:
            async with asyncio.timeout(self.call_timeout):
                while True:
                    try:
                        return await method(request)
                    except ConnectError as error:
                        wait = attempts.failed(uncanceled(error))
                    await asyncio.sleep(wait)
        except TimeoutError:
            raise WaitTimeout(
                f"the call to {self.config.url} was not answered within {self.call_timeout:g} s"
            ) from None

    async def stream(self, opened: Callable[[], AsyncIterator[_R]], cursor: Cursor[_R, _T]) -> AsyncGenerator[_T]:
        """Yield what a stream sends. It is opened again where it was when it breaks, until the server says that it is over."""
        self.check_open()
        attempts = self._attempts()
        while True:
            try:
                async with aclosing(cast("AsyncGenerator[_R]", opened())) as messages:
                    async for message in messages:
                        attempts.received()
                        yield cursor.take(message)
                        if cursor.over:
                            return
                wait = attempts.cut()
            except ConnectError as error:
                if cursor.starts_over(uncanceled(error)):
                    continue
                wait = attempts.failed(error)
            await asyncio.sleep(wait)


def uncanceled(error: ConnectError) -> ConnectError:
    """Give back the cancellation of a task, which the stubs take for an error of the call."""
    if isinstance(error.__cause__, asyncio.CancelledError):
        raise error.__cause__
    return error


class _PinnedTransport:
    """A transport that is made with the first request, when the server has shown its CA."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._made: HTTPTransport | None = None

    async def execute(self, request: Request) -> Response:
        if self._made is None:
            # Two requests at the same time may both make one; the CA is asked for once.
            await asyncio.to_thread(self._connection.security.ca)
            self._made = self._made or self._connection.transport()
        return await self._made.execute(request)

    async def aclose(self) -> None:
        if self._made is not None:
            await self._made.aclose()


class _Headers:
    """The headers of every call."""

    def __init__(self, connection: Connection) -> None:
        self._link = connection.link

    def _prepare(self, context: RequestContext[Any, Any], token: str) -> None:
        context.request_headers["hodei-client"] = f"python/{__version__}"
        if token:
            context.request_headers["authorization"] = f"Bearer {token}"

    def _note(self, error: ConnectError) -> None:
        if failure_of(error) is Failure.REMOTE:
            self._link.reached = True


class _Interceptor(_Headers):
    """Proves who makes a call. One whose token the server refuses is made once more with another."""

    def __init__(self, connection: Connection, token: AccessToken | None = None) -> None:
        super().__init__(connection)
        self._token = token

    async def _prove(self, context: RequestContext[Any, Any]) -> str:
        token = await self._token.get() if self._token else ""
        self._prepare(context, token)
        return token

    def _again(self, error: ConnectError, token: str) -> bool:
        self._note(error)
        return error.code == Code.UNAUTHENTICATED and self._token is not None and self._token.discard(token)

    async def intercept_unary(
        self,
        call_next: Callable[[Any, RequestContext[Any, Any]], Awaitable[Any]],
        request: Any,
        ctx: RequestContext[Any, Any],
        /,
    ) -> Any:
        token = await self._prove(ctx)
        try:
            answer = await call_next(request, ctx)
        except ConnectError as error:
            if not self._again(error, token):
                raise
            await self._prove(ctx)
            answer = await call_next(request, ctx)
        self._link.reached = True
        return answer

    async def intercept_server_stream(
        self,
        call_next: Callable[[Any, RequestContext[Any, Any]], AsyncIterator[Any]],
        request: Any,
        ctx: RequestContext[Any, Any],
        /,
    ) -> AsyncGenerator[Any]:
        token, answered = await self._prove(ctx), False
        for attempt in (1, 2):
            try:
                async with aclosing(cast("AsyncGenerator[Any]", call_next(request, ctx))) as messages:
                    async for message in messages:
                        answered = self._link.reached = True
                        yield message
                return
            except ConnectError as error:
                if not self._again(error, token) or answered or attempt == 2:
                    raise
            token = await self._prove(ctx)


class _SyncInterceptor(_Headers):
    """Does what `_Interceptor` does for the generated clients that block."""

    def __init__(self, connection: Connection, token: Callable[[], str]) -> None:
        super().__init__(connection)
        self._connection = connection
        self._token = token

    def _prove(self, context: RequestContext[Any, Any]) -> str:
        self._connection.check_open()
        token = self._token()
        self._prepare(context, token)
        return token

    def _again(self, error: ConnectError, token: str) -> bool:
        self._note(error)
        source = self._connection.token
        return error.code == Code.UNAUTHENTICATED and source is not None and source.discard(token)

    def intercept_unary_sync(
        self,
        call_next: Callable[[Any, RequestContext[Any, Any]], Any],
        request: Any,
        ctx: RequestContext[Any, Any],
        /,
    ) -> Any:
        token = self._prove(ctx)
        try:
            return call_next(request, ctx)
        except ConnectError as error:
            if not self._again(error, token):
                raise
        self._prove(ctx)
        return call_next(request, ctx)

    def intercept_server_stream_sync(
        self,
        call_next: Callable[[Any, RequestContext[Any, Any]], Iterator[Any]],
        request: Any,
        ctx: RequestContext[Any, Any],
        /,
    ) -> Iterator[Any]:
        token, answered = self._prove(ctx), False
        for attempt in (1, 2):
            try:
                for message in call_next(request, ctx):
                    answered = True
                    yield message
                return
            except ConnectError as error:
                if not self._again(error, token) or answered or attempt == 2:
                    raise
            token = self._prove(ctx)
