"""The operations, written once. `AsyncClient` awaits them, and `Client` runs them on an event loop of its own."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from protobuf import Oneof

from hodei._answers import Explanation, Worker
from hodei._batch import MOST_WATCHES, batches, groups
from hodei._failures import error_of
from hodei._filter import FilterOptions, Watch, job_filter
from hodei._gen.hodei.v1 import job_pb, job_service_pb, log_service_pb, worker_service_pb
from hodei._ids import request_id
from hodei._job import TERMINAL, JobSnapshot, JobState
from hodei._logs import LogChunk, LogOptions, Splitter, Tail
from hodei._spec import JobSpec, seconds
from hodei.errors import HodeiError, JobCanceled, JobError, JobFailed, JobTimeout, WaitTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from hodei._connection import Connection
    from hodei._logs import LogLine
    from hodei._spec import Command, JobOptions, Seconds

_J = TypeVar("_J", bound=JobSnapshot)
_T = TypeVar("_T")

# How many lines of the output an error has, and how long they are waited for: a worker may still be sending them.
_TAIL_LINES = 20
_TAIL_LIMIT = 10.0

# How long is looked for what to say of a wait that took too long.
_EXPLAIN_LIMIT = 2.0

_logger = logging.getLogger("hodei")


class Core(Generic[_J]):
    """What a client does, with handles of jobs of one type."""

    def __init__(self, connection: Connection, handle: Callable[[job_pb.Job], _J]) -> None:
        self.connection = connection
        self._handle = handle
        self._raw = connection.raw
        self._namespace = connection.config.namespace

    # Submitting

    async def submit(self, command: Command | JobSpec | None, options: JobOptions) -> _J:
        """Submit one job. It is durable then."""
        spec = JobSpec.of(command, options).message(self._namespace)
        request = job_service_pb.SubmitJobRequest(spec=spec, request_id=request_id())
        answer = await self.connection.call(self._raw.jobs.submit_job, request)
        return self._handle(answer.job or job_pb.Job())

    async def submit_many(self, commands: Iterable[Command | JobSpec], options: JobOptions) -> list[_J]:
        """Submit many jobs in as few calls as the server's limits allow."""
        jobs: list[_J] = []
        refused: HodeiError | None = None
        try:
            for batch in batches(self._requests(commands, options)):
                request = job_service_pb.SubmitJobsRequest(requests=batch, request_id=request_id())
                answer = await self.connection.call(self._raw.jobs.submit_jobs, request)
                for number, (item, result) in enumerate(zip(batch, answer.results, strict=True), len(jobs)):
                    if result.problem is None:
                        jobs.append(self._handle(job_pb.Job(id=result.job_id, spec=item.spec)))
                    elif refused is None:
                        message = f"job {number} of the batch was refused: {result.problem.message}"
                        refused = error_of(result.problem.code, message)
                if refused is not None:
                    raise refused
        except HodeiError as error:
            error.accepted = tuple(job.id for job in jobs)
            raise
        return jobs

    def _requests(
        self, commands: Iterable[Command | JobSpec], options: JobOptions
    ) -> Iterable[job_service_pb.SubmitJobRequest]:
        for command in commands:
            yield job_service_pb.SubmitJobRequest(spec=JobSpec.of(command, options).message(self._namespace))

    # Reading

    async def get(self, job_id: str) -> _J:
        """Return a job."""
        return self._handle(await self._get(job_id))

    async def refresh(self, job: _J) -> _J:
        """Bring a handle up to date."""
        job._set(await self._get(job.id))
        return job

    async def _get(self, job_id: str) -> job_pb.Job:
        answer = await self.connection.call(self._raw.jobs.get_job, job_service_pb.GetJobRequest(id=job_id))
        return answer.job or job_pb.Job()

    async def pages(self, options: FilterOptions, page_size: int | None, limit: int | None) -> AsyncGenerator[list[_J]]:
        """Yield the jobs that match, the newest first, page after page."""
        size = page_size if page_size is not None else min(limit or 200, 1000)
        request = job_service_pb.ListJobsRequest(filter=job_filter(options, self._namespace), page_size=size)
        left = limit
        while left is None or left > 0:
            answer = await self.connection.call(self._raw.jobs.list_jobs, request)
            jobs = answer.jobs if left is None else answer.jobs[:left]
            yield [self._handle(job) for job in jobs]
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token
            left = None if left is None else left - len(jobs)

    async def watch(self, options: FilterOptions) -> AsyncGenerator[list[_J]]:
        """Yield the jobs that match as they stand, then every change."""
        async with aclosing(self._watch(job_filter(options, self._namespace))) as changes:
            async for jobs in changes:
                yield [self._handle(job) for job in jobs]

    def _watch(self, jobs: job_service_pb.JobFilter) -> AsyncGenerator[list[job_pb.Job]]:
        watch = Watch(jobs)
        return self.connection.stream(lambda: self._raw.jobs.watch_jobs(watch.request), watch)

    async def explain(self, job: _J) -> Explanation:
        """Say why a job waits."""
        subject: Oneof[Literal["id"], str] = Oneof("id", job.id)
        request = job_service_pb.ExplainJobRequest(subject=subject)
        return Explanation(await self.connection.call(self._raw.jobs.explain_job, request))

    async def workers(self) -> AsyncGenerator[list[Worker]]:
        """Yield the workers, by name, page after page."""
        request = worker_service_pb.ListWorkersRequest(page_size=1000)
        while True:
            answer = await self.connection.call(self._raw.workers.list_workers, request)
            yield [Worker(worker) for worker in answer.workers]
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    async def cancel(self, job: _J, step: str | None, reason: str, force: bool) -> _J:
        """Ask for the end of a job, or of one of its steps."""
        request = job_service_pb.CancelJobRequest(
            id=job.id, step=step or "", reason=reason, force=force, request_id=request_id()
        )
        answer = await self.connection.call(self._raw.jobs.cancel_job, request)
        job._set(answer.job or job.message)
        return job

    # Waiting

    async def wait(self, job: _J, timeout: Seconds | None, check: bool) -> _J:
        """Wait for the end of a job."""
        if not job.done:
            limit = None if timeout is None else seconds(timeout)
            try:
                async with asyncio.timeout(limit):
                    await self._ended(job)
            except TimeoutError:
                raise await self._too_long(job, limit or 0) from None
        if check:
            await self.check(job)
        return job

    async def _ended(self, job: _J) -> None:
        job._set(await self._get(job.id))  # tells at once of a job that is not there
        if not job.done:
            async with aclosing(self._ends([job.id])) as ends:
                async for messages in ends:
                    for message in messages:
                        job._set(message)

    async def _ends(self, ids: Sequence[str]) -> AsyncGenerator[list[job_pb.Job]]:
        """Yield jobs of any namespace when they have ended, until all have; at most as many as a filter takes."""
        waited = set(ids)
        wanted = job_service_pb.JobFilter(namespace="*", ids=list(ids), states=TERMINAL)
        async with aclosing(self._watch(wanted)) as changes:
            async for jobs in changes:
                ended = [job for job in jobs if job.id in waited]
                waited.difference_update(job.id for job in ended)
                if ended:
                    yield ended
                if not waited:
                    return

    async def in_order(self, jobs: Sequence[_J], check: bool) -> AsyncGenerator[list[_J]]:
        """Yield jobs in their order, each when it has ended."""
        for group in groups(jobs):
            waiting = deque(group)
            by_id = {job.id: job for job in group if not job.done}
            if by_id:
                async with aclosing(self._ends(list(by_id))) as ends:
                    async for messages in ends:
                        for message in messages:
                            by_id[message.id]._set(message)
                        async for ready in self._ready(waiting, check):
                            yield ready
            async for ready in self._ready(waiting, check):
                yield ready

    async def _ready(self, waiting: deque[_J], check: bool) -> AsyncGenerator[list[_J]]:
        """Yield those at the front that have ended. One that has not ended well raises, after those before it."""
        ready: list[_J] = []
        while waiting and waiting[0].done:
            job = waiting.popleft()
            if check and job.state is not JobState.SUCCEEDED:
                yield ready
                await self.check(job)
            ready.append(job)
        if ready:
            yield ready

    async def completed(self, jobs: Iterable[_J], timeout: Seconds | None) -> AsyncGenerator[list[_J]]:
        """Yield jobs in the order in which they end."""
        by_id = {job.id: job for job in jobs}
        ended = [job for job in by_id.values() if job.done]
        if ended:
            yield ended
        waited = [job.id for job in by_id.values() if job.id and not job.done]
        async with aclosing(_merged([self._ends(group) for group in groups(waited)])) as ends:
            limit = None if timeout is None else seconds(timeout)
            deadline = None if limit is None else asyncio.get_running_loop().time() + limit
            left = len(waited)
            while left:
                try:
                    async with asyncio.timeout_at(deadline):
                        messages = await anext(ends)
                except TimeoutError:
                    raise WaitTimeout(
                        f"{left} of {len(by_id)} jobs have not ended after {limit:g} s; they go on"
                    ) from None
                for message in messages:
                    by_id[message.id]._set(message)
                left -= len(messages)
                yield [by_id[message.id] for message in messages]

    async def check(self, job: _J) -> None:
        """Raise what a job that has not ended well is to its caller."""
        kind = _ENDS.get(job.state, JobFailed)
        if job.state is not JobState.SUCCEEDED:
            tail = await self._tail(job)
            raise kind(_end_message(job, tail), job, tail)

    async def _tail(self, job: _J) -> list[str]:
        if job.attempt == 0:
            return []  # it has never run
        lines: deque[str] = deque(maxlen=_TAIL_LINES)
        try:
            async with (
                asyncio.timeout(_TAIL_LIMIT),
                aclosing(self.lines(job, True, LogOptions(tail=_TAIL_LINES))) as batches,
            ):
                async for batch in batches:
                    lines.extend(line.text for line in batch)
        except (HodeiError, TimeoutError):
            pass  # the end of the job is what counts; the caller may not be allowed to read its log
        return list(lines)

    async def _too_long(self, job: _J, limit: float) -> WaitTimeout:
        try:
            async with asyncio.timeout(_EXPLAIN_LIMIT):
                await self.refresh(job)
        except (HodeiError, TimeoutError):
            pass  # it is said how the job stood before
        why = f": {job.pending_reason}" if job.pending_reason else ""
        return WaitTimeout(
            f"job {job.id} has not ended after {limit:g} s; it is {job.state}{why}. It goes on; cancel() would stop it",
            job=job,
        )

    # Logs

    async def lines(self, job: _J, follow: bool, options: LogOptions) -> AsyncGenerator[list[LogLine]]:
        """Yield the lines of a job's output, many at once."""
        splitter = Splitter()
        async with aclosing(self._chunks(job, follow, options)) as batches:
            async for chunks in batches:
                yield splitter.feed(chunks)
        yield splitter.flush()

    async def chunks(self, job: _J, follow: bool, options: LogOptions) -> AsyncGenerator[list[LogChunk]]:
        """Yield the chunks of a job's output, many at once."""
        async with aclosing(self._chunks(job, follow, options)) as batches:
            async for chunks in batches:
                yield [LogChunk(chunk) for chunk in chunks]

    async def _chunks(
        self, job: _J, follow: bool, options: LogOptions
    ) -> AsyncGenerator[list[log_service_pb.LogChunk]]:
        tail = Tail(job.id, options, follow=follow)
        async with aclosing(self.connection.stream(lambda: self._raw.logs.tail_logs(tail.request), tail)) as batches:
            async for chunks in batches:
                yield chunks
        if tail.gap:
            _logger.warning("the log of job %s has gaps: %s", job.id, tail.gap)
        if damage := tail.damage():
            raise damage


_ENDS: dict[JobState, type[JobError]] = {JobState.CANCELED: JobCanceled, JobState.TIMED_OUT: JobTimeout}


def _end_message(job: JobSnapshot, tail: Sequence[str]) -> str:
    name = f' "{job.name}"' if job.name else ""
    what = {
        JobState.CANCELED: "was canceled",
        JobState.TIMED_OUT: "ran out of time",
        JobState.LOST: "was lost with its worker",
        JobState.SKIPPED: "was skipped",
    }.get(job.state, "failed")
    message = f"job {job.id}{name} {what}"
    if job.cause is not None:
        step = f' in step "{job.cause.step}"' if len(job.steps) > 1 and job.cause.step else ""
        message += f"{step}: {job.cause}"
    if tail:
        message += "\nIts output ends with:\n" + "\n".join(f"  {line}" for line in tail)
    return f"{message}\nSee {job.url}"


async def _merged(sources: list[AsyncGenerator[list[_T]]]) -> AsyncGenerator[list[_T]]:
    """Yield what several generators yield, as it comes. They wait when nobody takes it."""
    queue: asyncio.Queue[list[_T] | BaseException | None] = asyncio.Queue(maxsize=1)
    open_watches = asyncio.Semaphore(MOST_WATCHES)

    async def read(source: AsyncGenerator[list[_T]]) -> None:
        try:
            async with open_watches, aclosing(source):
                async for batch in source:
                    await queue.put(batch)
            await queue.put(None)
        except Exception as error:  # noqa: BLE001 - whoever takes the items gets it
            await queue.put(error)

    tasks = [asyncio.create_task(read(source)) for source in sources]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
