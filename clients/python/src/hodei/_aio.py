"""The client for asyncio. `_client` has the same for callers that block; what they do is in `_core`."""

from __future__ import annotations

from contextlib import aclosing
from inspect import isawaitable
from typing import TYPE_CHECKING, TypeVar

from hodei._config import Config
from hodei._connection import Connection
from hodei._core import Core
from hodei._job import JobSnapshot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from hodei._answers import Explanation, Worker
    from hodei._filter import FilterOptions
    from hodei._gen.hodei.v1 import job_pb
    from hodei._logs import LogChunk, LogLine, LogOptions
    from hodei._raw import AsyncRaw
    from hodei._spec import Command, JobOptions, JobSpec, Seconds

_T = TypeVar("_T")


async def _each(batches: AsyncGenerator[Sequence[_T]]) -> AsyncGenerator[_T]:
    """Yield what a generator yields in batches. It is closed when the caller takes no more."""
    async with aclosing(batches):
        async for batch in batches:
            for item in batch:
                yield item


class AsyncClient:
    """Talks to one server, for asyncio. Its methods are those of `Client`.

    A client belongs to one event loop. Canceling a task that waits stops the waiting, not the job.
    What yields should be closed when it is left half-way: `async with contextlib.aclosing(job.logs()) as lines:`.

    >>> async def main():
    ...     async with hodei.AsyncClient() as client:
    ...         job = await client.submit(["echo", "hello"])
    ...         async for line in job.logs(follow=True):
    ...             print(line)
    >>> asyncio.run(main())
    hello
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        token_file: str | None = None,
        ca: str | None = None,
        ca_pin: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        namespace: str | None = None,
        context: str | None = None,
        call_timeout: float | None = None,
    ) -> None:
        """Make a client; it connects with the first call. The arguments are those of `Client`.

        Raises:
            ConfigurationError: What is said here, or in the environment, makes no sense.
        """
        self._config = Config.resolve(
            url=url,
            token=token,
            token_file=token_file,
            ca=ca,
            ca_pin=ca_pin,
            cert=cert,
            key=key,
            namespace=namespace,
            context=context,
        )
        self._core = Core(Connection(self._config, call_timeout), self._handle)
        self.jobs = AsyncJobs(self)
        """The jobs of the server."""
        self.workers = AsyncWorkers(self)
        """The machines that run them."""

    def _handle(self, message: job_pb.Job) -> AsyncJob:
        return AsyncJob(message, self)

    @property
    def config(self) -> Config:
        """The settings that the client was made with."""
        return self._config

    @property
    def raw(self) -> AsyncRaw:
        """The generated clients, for what these methods do not cover."""
        return self._core.connection.raw

    async def close(self) -> None:
        """Close the connections. Jobs go on."""
        await self._core.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None, /
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._config.url}>"

    async def submit(self, command: Command | JobSpec | None = None, **options: Unpack[JobOptions]) -> AsyncJob:
        """Submit a job and return it as the server has accepted it. See `Client.submit`."""
        return await self._core.submit(command, options)

    async def submit_many(self, commands: Iterable[Command | JobSpec], **options: Unpack[JobOptions]) -> list[AsyncJob]:
        """Submit many jobs with few calls, and return them in the order of the commands. See `Client.submit_many`."""
        return await self._core.submit_many(commands, options)

    async def run(
        self,
        command: Command | JobSpec | None = None,
        *,
        on_line: Callable[[LogLine], object] | None = None,
        check: bool = True,
        **options: Unpack[JobOptions],
    ) -> AsyncJob:
        """Submit a job, and return it when it has ended. See `Client.run`; `on_line` may be a coroutine function."""
        job = await self.submit(command, **options)
        if on_line is not None:
            async with aclosing(job.logs(follow=True)) as lines:
                async for line in lines:
                    result = on_line(line)
                    if isawaitable(result):
                        await result
        return await job.wait(check=check)

    async def map(
        self, commands: Iterable[Command | JobSpec], *, check: bool = False, **options: Unpack[JobOptions]
    ) -> AsyncGenerator[AsyncJob]:
        """Submit a job for each command, and yield them in that order, each when it has ended. See `Client.map`."""
        jobs = await self.submit_many(commands, **options)
        async with aclosing(_each(self._core.in_order(jobs, check))) as ended:
            async for job in ended:
                yield job

    def as_completed(self, jobs: Iterable[AsyncJob], timeout: Seconds | None = None) -> AsyncGenerator[AsyncJob]:
        """Yield jobs in the order in which they end, however they end. See `Client.as_completed`."""
        return _each(self._core.completed(jobs, timeout))


class AsyncJobs:
    """The jobs of the server."""

    def __init__(self, client: AsyncClient) -> None:
        """Make the jobs of a client; only this package needs to."""
        self._client = client

    async def get(self, job_id: str) -> AsyncJob:
        """Return a job by its id. See `Jobs.get`."""
        return await self._client._core.get(job_id)

    def list(
        self, *, page_size: int | None = None, limit: int | None = None, **options: Unpack[FilterOptions]
    ) -> AsyncGenerator[AsyncJob]:
        """Yield the jobs that match, the newest first. See `Jobs.list`."""
        return _each(self._client._core.pages(options, page_size, limit))

    def watch(self, **options: Unpack[FilterOptions]) -> AsyncGenerator[AsyncJob]:
        """Yield the jobs that match as they stand, then every change. See `Jobs.watch`."""
        return _each(self._client._core.watch(options))


class AsyncWorkers:
    """The machines that run jobs."""

    def __init__(self, client: AsyncClient) -> None:
        """Make the workers of a client; only this package needs to."""
        self._client = client

    def list(self) -> AsyncGenerator[Worker]:
        """Yield the workers, by name."""
        return _each(self._client._core.workers())


class AsyncJob(JobSnapshot):
    """A job: a handle to do things with it, and what is known of it. See `Job`."""

    def __init__(self, message: job_pb.Job, client: AsyncClient) -> None:
        """Make a handle; only this package needs to."""
        super().__init__(message, client.config.url)
        self._client = client

    async def refresh(self) -> Self:
        """Ask the server how the job stands now."""
        await self._client._core.refresh(self)
        return self

    async def wait(self, timeout: Seconds | None = None, *, check: bool = True) -> Self:
        """Wait for the end of the job, and return it. See `Job.wait`."""
        await self._client._core.wait(self, timeout, check)
        return self

    def logs(self, *, follow: bool = False, **options: Unpack[LogOptions]) -> AsyncGenerator[LogLine]:
        """Yield the lines of the output. See `Job.logs`."""
        return _each(self._client._core.lines(self, follow, options))

    def chunks(self, *, follow: bool = False, **options: Unpack[LogOptions]) -> AsyncGenerator[LogChunk]:
        """Yield the output as the bytes that were written. See `Job.chunks`."""
        return _each(self._client._core.chunks(self, follow, options))

    async def output(self, **options: Unpack[LogOptions]) -> str:
        """Return the output so far as one text. See `Job.output`."""
        return "\n".join([line.text async for line in self.logs(**options)])

    async def cancel(self, *, step: str | None = None, reason: str = "", force: bool = False) -> Self:
        """Ask for the end of the job, and return it as it stands then. See `Job.cancel`."""
        await self._client._core.cancel(self, step, reason, force)
        return self

    async def explain(self) -> Explanation:
        """Say why the job waits. See `Job.explain`."""
        return await self._client._core.explain(self)
