"""Runs what is asynchronous for callers that are not.

A blocking read in the transport cannot be interrupted: Ctrl-C would do nothing until the server says something. A wait
for a result that another thread brings can be.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from hodei._exit import settle
from hodei.errors import ConfigurationError, HodeiError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
    from typing import Any

_T = TypeVar("_T")

CLOSED = "the client is closed; make another one"

# How long an interrupted call may take to clean up.
_CLEAN_UP = 2.0


class Portal:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # What callers wait for. Nobody may wait for a loop that has ended.
        self._results: set[Future[Any]] = set()
        self._thread = threading.Thread(target=_serve, args=(self._loop, self._results), name="hodei", daemon=True)
        self._thread.start()
        # Also at exit, and when nobody has the client any more.
        self._finalize = weakref.finalize(self, _stop, self._loop, self._thread)

    @property
    def closed(self) -> bool:
        """Whether the loop was stopped."""
        return not self._finalize.alive

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run something on the loop and return its result. When the caller is interrupted, so is the work."""
        if self.closed:
            work.close()
            raise ConfigurationError(CLOSED)
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this would wait for itself: the client's own thread calls the client")
        result: Future[_T] = Future()
        tasks: list[asyncio.Task[_T]] = []

        def start() -> None:
            task = self._loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(lambda done: _hand_over(done, result))

        self._results.add(result)
        try:
            self._loop.call_soon_threadsafe(start)
        except RuntimeError:  # another thread has closed it meanwhile
            work.close()
            raise ConfigurationError(CLOSED) from None
        try:
            return result.result()
        except CancelledError:
            raise ConfigurationError(CLOSED) from None
        except HodeiError as error:
            # What the loop was doing tells the caller nothing: the traceback begins here.
            raise error.with_traceback(None) from error.__cause__
        except BaseException:
            if not result.done():
                self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
                with suppress(BaseException):
                    result.exception(_CLEAN_UP)
            raise
        finally:
            self._results.discard(result)

    def iterate(self, batches: AsyncGenerator[Sequence[_T]]) -> Iterator[_T]:
        """Yield what a generator yields in batches. It is closed when the caller takes no more."""
        try:
            while (batch := self.run(_next(batches))) is not None:
                yield from batch
        finally:
            self._close(batches)

    def _close(self, batches: AsyncGenerator[Sequence[_T]]) -> None:
        if self.closed:
            return
        if threading.current_thread() is self._thread:
            # The garbage collector may come here in any thread; this one must not wait for itself.
            self._loop.create_task(_close(batches))
        else:
            self.run(_close(batches))

    def close(self) -> None:
        """Stop the loop."""
        self._finalize()


async def _next(batches: AsyncGenerator[Sequence[_T]]) -> Sequence[_T] | None:
    return await anext(batches, None)


async def _close(batches: AsyncGenerator[Sequence[_T]]) -> None:
    with suppress(RuntimeError):  # an interrupted read is still cleaning up: it closes what it has
        await batches.aclose()


def _hand_over(task: asyncio.Task[_T], result: Future[_T]) -> None:
    if task.cancelled():
        result.cancel()
    elif error := task.exception():
        result.set_exception(error)
    else:
        result.set_result(task.result())


def _serve(loop: asyncio.AbstractEventLoop, results: set[Future[Any]]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        for result in list(results):
            result.cancel()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    with suppress(RuntimeError):  # closed already
        loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join(_CLEAN_UP)
    settle()
