"""A job as it stood when the server last told."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from hodei._gen.hodei.v1 import job_pb as pb

if TYPE_CHECKING:
    from datetime import datetime

    from protobuf.wkt import Timestamp


class JobState(StrEnum):
    """Where a job stands. Terminal states never change."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not known yet: `refresh()` asks the server."""
    BLOCKED = "BLOCKED"
    """Waits for other jobs."""
    DELAYED = "DELAYED"
    """Waits for a time."""
    QUEUED = "QUEUED"
    """Waits for a worker."""
    ASSIGNED = "ASSIGNED"
    """Has a worker, which has not started it yet."""
    RUNNING = "RUNNING"
    """Runs."""
    CANCELING = "CANCELING"
    """Is being stopped; its processes may still run."""
    SUCCEEDED = "SUCCEEDED"
    """Every step ended with exit code 0."""
    FAILED = "FAILED"
    """A step failed and no attempt is left."""
    CANCELED = "CANCELED"
    """Stopped on request."""
    TIMED_OUT = "TIMED_OUT"
    """Stopped because its time was up."""
    LOST = "LOST"
    """Its worker was lost, and what it did is unknown."""
    SKIPPED = "SKIPPED"
    """Never ran, because a job that it needs did not succeed."""

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.TIMED_OUT, JobState.LOST, JobState.SKIPPED,
    }
)  # fmt: skip
TERMINAL = [pb.JobState[state] for state in sorted(_TERMINAL)]


class StepState(StrEnum):
    """Where a step stands."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not known."""
    PENDING = "PENDING"
    """Waits for the steps before it."""
    RUNNING = "RUNNING"
    """Runs."""
    SUCCEEDED = "SUCCEEDED"
    """Ended with exit code 0."""
    FAILED = "FAILED"
    """Ended otherwise."""
    CANCELED = "CANCELED"
    """Stopped on request."""
    TIMED_OUT = "TIMED_OUT"
    """Stopped because its time was up."""
    SKIPPED = "SKIPPED"
    """Did not run."""


class Cause:
    """Why a job, or a step, ended. `str(cause)` is a sentence."""

    def __init__(self, message: pb.Cause) -> None:
        """Make a cause of the server's message; only this package needs to."""
        self.kind: str = message.kind.name or "UNSPECIFIED"
        """`EXIT_CODE`, `SIGNAL`, `OUT_OF_MEMORY`, `TIMEOUT`, `CANCELED`, `WORKER_LOST`, `INVALID`, ..."""
        self.exit_code: int = message.exit_code
        """The exit code, 128 + N for signal N."""
        self.signal: str = message.signal
        """The name of the signal, where a process was ended by one."""
        self.step: str = message.step
        """The step that decided the end."""
        self.message: str = message.message
        """One sentence for people."""
        self.actor: str = message.actor
        """Who asked for it, for a cancel."""

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"exit code {self.exit_code}" if self.kind == "EXIT_CODE" else self.kind.lower().replace("_", " ")

    def __repr__(self) -> str:
        return f"Cause({self.kind}, {str(self)!r})"


class Progress:
    """What a job says of how far it is."""

    def __init__(self, message: pb.Progress) -> None:
        """Make it of the server's message; only this package needs to."""
        self.fraction: float = message.fraction
        """How much of its work is done, from 0 to 1."""
        self.message: str = message.message
        """What it does, in a few words; may be empty."""

    def __str__(self) -> str:
        return f"{self.fraction:.0%} {self.message}".rstrip()

    def __repr__(self) -> str:
        return f"Progress({self.fraction}, {self.message!r})"


class StepStatus:
    """What became of one step in one attempt."""

    def __init__(self, message: pb.StepStatus) -> None:
        """Make a status of the server's message; only this package needs to."""
        self.name: str = message.name
        """The step's name."""
        self.state = _state(StepState, message.state)
        """Where the step stands."""
        self.cause = _cause(message.cause)
        """Why it ended; None before."""
        self.started = _time(message.start_time)
        """When its process was started."""
        self.ended = _time(message.end_time)
        """When nothing of it ran any more."""

    def __repr__(self) -> str:
        return f"StepStatus({self.name!r}, {self.state})"


class JobSnapshot:
    """What is known of a job: how it stood when the server last told."""

    def __init__(self, message: pb.Job, server: str) -> None:
        """Make a snapshot of the server's message; only this package needs to."""
        self._message = message
        self._server = server

    def _set(self, message: pb.Job) -> None:
        self._message = message
        for name in ("cause", "steps"):
            self.__dict__.pop(name, None)

    @property
    def message(self) -> pb.Job:
        """The server's message, with all that it says."""
        return self._message

    @property
    def id(self) -> str:
        """The id: `job_` and a ULID."""
        return self._message.id

    @property
    def name(self) -> str:
        """The name that the job was given."""
        return self._spec.name

    @property
    def namespace(self) -> str:
        """The tenant that owns the job."""
        return self._spec.namespace

    @property
    def queue(self) -> str:
        """The queue that the job waits in, or has waited in."""
        return self._spec.queue

    @property
    def labels(self) -> dict[str, str]:
        """The labels that the job was given."""
        return dict(self._spec.labels)

    @property
    def state(self) -> JobState:
        """Where the job stands."""
        return _state(JobState, self._message.state)

    @property
    def done(self) -> bool:
        """Whether the job has ended."""
        return self.state.terminal

    @cached_property
    def cause(self) -> Cause | None:
        """Why the job ended; None before."""
        return _cause(self._message.cause)

    @property
    def exit_code(self) -> int | None:
        """The exit code: 0 for success, 128 + N where signal N ended it; None before the end, or when nothing ran."""
        if self.state is JobState.SUCCEEDED:
            return 0
        return (self.cause.exit_code or None) if self.cause else None

    @property
    def signal(self) -> str:
        """The name of the signal that ended the job, `"SIGSEGV"`; empty when none did."""
        return self.cause.signal if self.cause else ""

    @property
    def attempt(self) -> int:
        """The current or last attempt, counted from 1; 0 before the first."""
        return self._message.attempt

    @property
    def worker_id(self) -> str:
        """The worker of the current or last attempt."""
        return self._message.worker_id

    @cached_property
    def steps(self) -> tuple[StepStatus, ...]:
        """The steps of the current or last attempt."""
        return tuple(StepStatus(step) for step in self._message.steps)

    @property
    def progress(self) -> Progress | None:
        """How far the current or last attempt has said that it is; None when it has said nothing."""
        return Progress(self._message.progress) if self._message.progress is not None else None

    @property
    def created(self) -> datetime | None:
        """When the server accepted the job."""
        return _time(self._message.create_time)

    @property
    def started(self) -> datetime | None:
        """When the current or last attempt started on its worker."""
        return _time(self._message.start_time)

    @property
    def ended(self) -> datetime | None:
        """When the job has ended."""
        return _time(self._message.end_time)

    @property
    def pending_reason(self) -> str:
        """For a job that waits: why, in one sentence."""
        return self._message.held or self._message.pending_reason

    @property
    def url(self) -> str:
        """The address of the job's page."""
        return f"{self._server}/jobs/{self.id}"

    @property
    def _spec(self) -> pb.JobSpec:
        return self._message.spec or _NO_SPEC

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__} {self.id}{name} {self.state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobSnapshot) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


_NO_SPEC = pb.JobSpec()


_S = TypeVar("_S", bound=StrEnum)


def _state(kind: type[_S], value: pb.JobState | pb.StepState) -> _S:
    try:
        return kind(value.name)
    except ValueError:  # of a newer server
        return kind("UNSPECIFIED")


def _cause(message: pb.Cause | None) -> Cause | None:
    return Cause(message) if message is not None and message.kind else None


def _time(message: Timestamp | None) -> datetime | None:
    return message.to_datetime() if message is not None else None
