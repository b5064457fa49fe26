"""Access tokens: one exchange serves all calls that wait for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

from protobuf import Oneof

from hodei._failures import error_of
from hodei._gen.hodei.v1.auth_service_pb import ExchangeTokenRequest
from hodei._security import read
from hodei.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hodei._config import Config
    from hodei._gen.hodei.v1.auth_service_pb import ExchangeTokenResponse

    Exchange = Callable[[ExchangeTokenRequest], Awaitable[ExchangeTokenResponse]]

# How an access token begins; what begins so is used as it is.
_ACCESS = "eyJ"

# An exchange goes on without the call that began it.
_EXCHANGE_LIMIT = 30.0

# How long after a failed exchange the next one is tried, while the token is still good.
_PAUSE = 10.0

# How long a token counts as good when the clocks differ so much that it seems to end before. The server says when it does.
_LEAST_LIFE = 60.0

_LARGEST = 16 << 10


class Lifetime:
    """From when on a token is renewed, and until when it is good, on a clock that only goes forward."""

    def __init__(self) -> None:
        self.renew_at = self.expires = float("-inf")

    def begin(self, now: float, life: float) -> None:
        """Note a token that is good for so many seconds from now on."""
        life = max(life, _LEAST_LIFE)
        self.renew_at, self.expires = now + life * 2 / 3, now + life

    def postpone(self, now: float) -> None:
        """Note that renewing has failed: a token that is still good is used for a while before the next try."""
        if self.expires > now:
            self.renew_at = min(now + _PAUSE, self.expires)

    def end(self) -> None:
        """Note that the server has refused the token."""
        self.renew_at = self.expires = float("-inf")


class AccessToken:
    """Gets access tokens for calls. It belongs to one event loop."""

    def __init__(self, config: Config, exchange: Exchange, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._exchange = exchange
        self._clock = clock
        self._value = ""
        self._lifetime = Lifetime()
        self._running: asyncio.Task[str] | None = None
        secret = self._secret()
        self._fixed = secret if secret.startswith(_ACCESS) and config.token else ""

    @property
    def renewable(self) -> bool:
        """Whether another token can be had when one is refused."""
        return not self._fixed

    async def get(self) -> str:
        """Return a token that is good now. When two thirds of its life are over, a fresh one is made for later calls."""
        if self._fixed:
            return self._fixed
        now = self._clock()
        if now < self._lifetime.renew_at:
            return self._value
        if self._running is None:
            self._running = asyncio.create_task(self._renew())
            self._running.add_done_callback(self._done)
        if now < self._lifetime.expires:
            return self._value
        # Whoever stops waiting does not stop the exchange for the others.
        return await asyncio.shield(self._running)

    def discard(self, value: str) -> bool:
        """Forget a token that the server has refused, and report whether another one can be had."""
        if value == self._value:
            self._lifetime.end()
        return self.renewable

    def close(self) -> None:
        """Stop an exchange that is under way."""
        if self._running is not None:
            self._running.cancel()

    def _done(self, task: asyncio.Task[str]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # whoever waits gets it; with nobody waiting it is no news

    async def _renew(self) -> str:
        start = self._clock()
        try:
            async with asyncio.timeout(_EXCHANGE_LIMIT):
                value, life = await self._trade()
        except BaseException:
            self._lifetime.postpone(start)
            raise
        self._value = value
        self._lifetime.begin(start, life)
        return value

    async def _trade(self) -> tuple[str, float]:
        secret = self._secret()
        if secret.startswith(_ACCESS):
            # A file may hold an access token too, which somebody else renews.
            return secret, _PAUSE
        proof: Oneof[Literal["api_token"], str] = Oneof("api_token", secret)
        answer = await self._exchange(ExchangeTokenRequest(proof=proof))
        if not answer.access_token or answer.expire_time is None:
            raise error_of("internal", "the server has answered the exchange of the token without an access token")
        return answer.access_token, answer.expire_time.to_seconds() - time.time()

    def _secret(self) -> str:
        if self._config.token:
            return clean(self._config.token, "the token (HODEI_TOKEN)")
        path = self._config.token_file
        return clean(read(path, "the token").decode("utf-8", "replace"), path)


def clean(text: str, where: str) -> str:
    """Take away what surrounds a token, and refuse what is none before it is sent anywhere. No message repeats it."""
    text = text.strip()
    if not text:
        raise ConfigurationError(f"{where} holds no token")
    if len(text) > _LARGEST:
        raise ConfigurationError(f"{where} holds {len(text)} characters, which is too much for a token")
    if not all("!" <= character <= "~" for character in text):
        raise ConfigurationError(
            f"{where} holds something else than one token: there are spaces or special characters in it"
        )
    return text
