"""The client that blocks. `_aio` has the same for asyncio; what they do is in `_core`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from hodei._config import Config
from hodei._connection import Connection
from hodei._core import Core
from hodei._job import JobSnapshot
from hodei._portal import Portal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self, Unpack

    from pyqwest import SyncHTTPTransport

    from hodei._answers import Explanation, Worker
    from hodei._filter import FilterOptions
    from hodei._gen.hodei.v1 import job_pb
    from hodei._logs import LogChunk, LogLine, LogOptions
    from hodei._raw import Raw
    from hodei._spec import Command, JobOptions, JobSpec, Seconds


class Client:
    """Talks to one server.

    Without arguments it takes what the `hodei` command takes: the variables `HODEI_URL`, `HODEI_CA`, `HODEI_TOKEN` and
    so on, then the current context of the file of contexts. Its methods may be called from several threads at once.
    Files of certificates are read when the client is made. The certificate of a login is renewed by the `hodei`
    command, not here: a program that runs for longer than it is good uses a token.

    >>> with hodei.Client() as client:
    ...     print(client.run(["echo", "hello"]).output())
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
        """Make a client; it connects with the first call.

        Args:
            url: The address of the server: `https://host:7443`.
            token: An API token, or an access token.
            token_file: A file with the token, which is read again when it is needed.
            ca: The file with the CA by which the server is known, in PEM.
            ca_pin: `sha256:` and the hash of the public key of that CA, instead of the file.
            cert: The file with a client certificate, in PEM.
            key: The file with its key.
            namespace: The namespace of jobs and filters that name none.
            context: The context of the file of contexts.
            call_timeout: How many seconds one call may take with all its repetitions; as long as needed when not set.
                Waiting for jobs and reading logs are not bound by it.

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
        connection = Connection(self._config, call_timeout)
        self._core = Core(connection, self._handle)
        self._portal = Portal()
        self._raw_lock = threading.Lock()
        self._raw: Raw | None = None
        self._raw_transport: SyncHTTPTransport | None = None
        self.jobs = Jobs(self)
        """The jobs of the server."""
        self.workers = Workers(self)
        """The machines that run them."""

    def _handle(self, message: job_pb.Job) -> Job:
        return Job(message, self)

    @property
    def config(self) -> Config:
        """The settings that the client was made with."""
        return self._config

    @property
    def raw(self) -> Raw:
        """The generated clients, for what these methods do not cover."""
        with self._raw_lock:
            if self._raw is None:
                self._raw, self._raw_transport = self._core.connection.sync_raw(self._token)
            return self._raw

    def _token(self) -> str:
        token = self._core.connection.token
        return self._portal.run(token.get()) if token is not None else ""

    def close(self) -> None:
        """Close the connections. Jobs go on."""
        if not self._portal.closed:
            self._portal.run(self._core.connection.close())
            self._portal.close()
        if self._raw_transport is not None:
            self._raw_transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None, /
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._config.url}>"

    def submit(self, command: Command | JobSpec | None = None, **options: Unpack[JobOptions]) -> Job:
        """Submit a job and return it as the server has accepted it. It is durable then.

        Args:
            command: A list is a program and its arguments, started without a shell; a text is a script for `sh -e -c`;
                a `JobSpec` is taken as it is, with the options changed.
            **options: The fields of `JobSpec`.

        >>> job = client.submit("echo hello; date", name="greeting", labels={"team": "data"})
        >>> job.name, job.done
        ('greeting', False)
        >>> job.wait().exit_code
        0
        """
        return self._portal.run(self._core.submit(command, options))

    def submit_many(self, commands: Iterable[Command | JobSpec], **options: Unpack[JobOptions]) -> list[Job]:
        """Submit many jobs with few calls, and return them in the order of the commands.

        Each is accepted or refused by itself. When one is refused, the error has the ids of those that were accepted in
        `accepted`. Of the jobs that are returned only what was sent is known; `refresh()` and `wait()` ask the server.

        >>> jobs = client.submit_many([["echo", str(number)] for number in range(3)])
        >>> [job.wait().output() for job in jobs]
        ['0', '1', '2']
        """
        # Read here: what makes the commands may use this client itself.
        return self._portal.run(self._core.submit_many(list(commands), options))

    def run(
        self,
        command: Command | JobSpec | None = None,
        *,
        on_line: Callable[[LogLine], object] | None = None,
        check: bool = True,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit a job, and return it when it has ended. Leaving early, with Ctrl-C for example, does not stop the job.

        Args:
            command: As for `submit`.
            on_line: Is called with each line of the output, as it comes.
            check: Raise `JobFailed`, `JobCanceled` or `JobTimeout` when the job does not succeed.
            **options: The fields of `JobSpec`.

        >>> client.run("echo one; echo two", on_line=print).state
        one
        two
        <JobState.SUCCEEDED: 'SUCCEEDED'>
        """
        job = self.submit(command, **options)
        if on_line is not None:
            for line in job.logs(follow=True):
                on_line(line)
        return job.wait(check=check)

    def map(
        self, commands: Iterable[Command | JobSpec], *, check: bool = False, **options: Unpack[JobOptions]
    ) -> Iterator[Job]:
        """Submit a job for each command, and yield them in the order of the commands, each when it has ended.

        All are submitted when the first result is asked for.

        Args:
            commands: As for `submit`.
            check: Raise `JobFailed`, `JobCanceled` or `JobTimeout` at the first job that does not succeed; the others
                go on. Without it, every job is yielded, and its `state` says how it ended.
            **options: The fields of `JobSpec`, for all of them.

        >>> [job.exit_code for job in client.map(["exit 0", "exit 3"])]
        [0, 3]
        """
        jobs = self.submit_many(commands, **options)
        yield from self._portal.iterate(self._core.in_order(jobs, check))

    def as_completed(self, jobs: Iterable[Job], timeout: Seconds | None = None) -> Iterator[Job]:
        """Yield jobs in the order in which they end, however they end.

        >>> jobs = client.submit_many(["sleep 2; echo late", "echo early"])
        >>> [job.output() for job in client.as_completed(jobs, timeout=30)]
        ['early', 'late']
        """
        return self._portal.iterate(self._core.completed(list(jobs), timeout))


class Jobs:
    """The jobs of the server."""

    def __init__(self, client: Client) -> None:
        """Make the jobs of a client; only this package needs to."""
        self._client = client

    def get(self, job_id: str) -> Job:
        """Return a job by its id.

        Raises:
            NotFound: There is none.
        """
        return self._client._portal.run(self._client._core.get(job_id))

    def list(
        self, *, page_size: int | None = None, limit: int | None = None, **options: Unpack[FilterOptions]
    ) -> Iterator[Job]:
        """Yield the jobs that match, the newest first. Pages are read as they are needed.

        Args:
            page_size: How many jobs are asked for at once.
            limit: How many are yielded at most.
            **options: The fields of a filter: `name`, `labels`, `states`, `queue`, `namespace` and `ids`.

        >>> job = client.run(["true"], labels={"suite": "docs"})
        >>> [found.state for found in client.jobs.list(labels={"suite": "docs"}, states=["SUCCEEDED"], limit=1)]
        [<JobState.SUCCEEDED: 'SUCCEEDED'>]
        """
        return self._client._portal.iterate(self._client._core.pages(options, page_size, limit))

    def watch(self, **options: Unpack[FilterOptions]) -> Iterator[Job]:
        """Yield the jobs that match as they stand, then every change, until the caller takes no more.

        It goes on through restarts of the server. A job may be yielded more than once for one change.

        >>> job = client.submit("echo hello")
        >>> for change in client.jobs.watch(ids=[job.id]):
        ...     if change.done:
        ...         break
        """
        return self._client._portal.iterate(self._client._core.watch(options))


class Workers:
    """The machines that run jobs."""

    def __init__(self, client: Client) -> None:
        """Make the workers of a client; only this package needs to."""
        self._client = client

    def list(self) -> Iterator[Worker]:
        """Yield the workers, by name.

        >>> [worker.state for worker in client.workers.list()]
        ['READY']
        """
        return self._client._portal.iterate(self._client._core.workers())


class Job(JobSnapshot):
    """A job: a handle to do things with it, and what is known of it.

    What is known is how it stood when the server last told; `refresh()` and `wait()` bring it up to date.
    """

    def __init__(self, message: job_pb.Job, client: Client) -> None:
        """Make a handle; only this package needs to."""
        super().__init__(message, client.config.url)
        self._client = client

    def refresh(self) -> Self:
        """Ask the server how the job stands now."""
        self._client._portal.run(self._client._core.refresh(self))
        return self

    def wait(self, timeout: Seconds | None = None, *, check: bool = True) -> Self:
        """Wait for the end of the job, and return it.

        Args:
            timeout: How many seconds to wait at most; without end when not set. The job goes on when they are over.
            check: Raise when the job does not succeed.

        Raises:
            JobFailed: It failed, was lost with its worker, or was skipped.
            JobCanceled: It was canceled.
            JobTimeout: It has run for as long as it may.
            WaitTimeout: It has not ended in time; the error says how it stands, and why it waits.
        """
        self._client._portal.run(self._client._core.wait(self, timeout, check))
        return self

    def logs(self, *, follow: bool = False, **options: Unpack[LogOptions]) -> Iterator[LogLine]:
        """Yield the lines of the output.

        A line is kept until its end has come. Take `chunks` for output that has no lines.

        Args:
            follow: Stay until the job has ended. Reading goes on where it was through restarts of the server.
            **options: `stream` (`"stdout"` or `"stderr"`), `step`, `attempt`, `tail` (so many lines before the present
                end), `since` and `until`.

        >>> job = client.submit("echo out; echo err >&2")
        >>> sorted((line.stream, line.text) for line in job.logs(follow=True))
        [('stderr', 'err'), ('stdout', 'out')]
        """
        return self._client._portal.iterate(self._client._core.lines(self, follow, options))

    def chunks(self, *, follow: bool = False, **options: Unpack[LogOptions]) -> Iterator[LogChunk]:
        r"""Yield the output as the bytes that were written. The arguments are those of `logs`.

        >>> job = client.run(r"printf '\001\002'")
        >>> b"".join(chunk.data for chunk in job.chunks(stream="stdout"))
        b'\x01\x02'
        """
        return self._client._portal.iterate(self._client._core.chunks(self, follow, options))

    def output(self, **options: Unpack[LogOptions]) -> str:
        """Return the output so far as one text, without the end of the last line. The arguments are those of `logs`.

        Both streams are in it, unless `stream` names one.
        """
        return "\n".join(line.text for line in self.logs(**options))

    def cancel(self, *, step: str | None = None, reason: str = "", force: bool = False) -> Self:
        """Ask for the end of the job, and return it as it stands then. `wait()` tells when nothing runs any more.

        Args:
            step: Only this step; the job goes on with the next.
            reason: A word for the record, why.
            force: Do not wait for the grace period: SIGKILL at once.

        Raises:
            FailedPrecondition: It has ended already.
        """
        self._client._portal.run(self._client._core.cancel(self, step, reason, force))
        return self

    def explain(self) -> Explanation:
        """Say why the job waits.

        >>> job = client.submit(["true"], constraints=["os=plan9"])
        >>> explanation = job.explain()
        >>> explanation.fitting
        0
        >>> job.cancel().state
        <JobState.CANCELED: 'CANCELED'>
        """
        return self._client._portal.run(self._client._core.explain(self))
