"""When a call that failed is made again, and when that makes no sense."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from connectrpc.code import Code

from hodei._failures import Failure, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectrpc.errors import ConnectError

SHORTEST = 0.05
LONGEST = 2.0

# How often a connection may be cut before anything was received: a server that refuses a certificate does it too, and
# must not be called for ever.
CUT_TRIES = 5


class Backoff:
    """Waits that double up to the longest, each shortened at random by up to one half."""

    def __init__(self) -> None:
        self._wait = SHORTEST

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        self._wait = SHORTEST

    def next(self) -> float:
        """Return how many seconds to wait now."""
        wait = self._wait
        self._wait = min(2 * wait, LONGEST)
        return wait * random.uniform(0.5, 1)  # noqa: S311 - spreads load, hides nothing


class Link:
    """What is known of the way to the server, over all calls of a client."""

    def __init__(self, *, renewable: bool = False) -> None:
        self.reached = False
        """Whether the server has ever answered."""
        self.renewable = renewable
        """Whether there is a fresh proof of the caller when one is refused."""


class Attempts:
    """The attempts of one call, or of one stream that goes on where it was."""

    def __init__(self, link: Link, translate: Callable[[ConnectError], Exception]) -> None:
        self._link = link
        self._translate = translate
        self._backoff = Backoff()
        self._failures = 0

    def received(self) -> None:
        """Note that the stream has sent something: its next failure is a new one."""
        self._failures = 1
        self._backoff.reset()

    def failed(self, error: ConnectError) -> float:
        """Return how many seconds to wait before the next attempt; raise when it makes no sense."""
        if self._hopeless(error):
            # An answer of the server says all; of other failures, what the transport says may help.
            raise self._translate(error) from (None if failure_of(error) is Failure.REMOTE else error)
        self._failures += 1
        return self._backoff.next()

    def cut(self) -> float:
        """Do what `failed` does for a stream that has ended without the server's word that it is over."""
        self._failures += 1
        return self._backoff.next()

    def _hopeless(self, error: ConnectError) -> bool:
        failure = failure_of(error)
        if self._failures == 1 and error.code == Code.UNAUTHENTICATED and self._link.renewable:
            # The stream went well until what proved the caller ran out: there is a fresh proof for the next one.
            return False
        if not transient(error, failure):
            return True
        if self._link.reached:
            return False
        # A server that was never reached is more likely a wrong address than a restart.
        if self._failures == 0:
            return failure in (Failure.DIAL, Failure.SILENT)
        return self._failures >= CUT_TRIES and failure == Failure.CUT


def transient(error: ConnectError, failure: Failure) -> bool:
    """Report whether the same call may succeed later: the server stops, or the connection to it broke."""
    if failure is Failure.REMOTE:
        return error.code == Code.UNAVAILABLE
    return failure in (Failure.DIAL, Failure.CUT, Failure.SILENT)
