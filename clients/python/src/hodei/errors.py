"""The errors that this package raises. All of them are a `HodeiError`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from hodei._job import JobSnapshot

__all__ = [
    "ConfigurationError",
    "FailedPrecondition",
    "HodeiError",
    "InvalidArgument",
    "JobCanceled",
    "JobError",
    "JobFailed",
    "JobTimeout",
    "NotFound",
    "PermissionDenied",
    "QuotaExceeded",
    "Unauthenticated",
    "Unavailable",
    "VersionSkew",
    "WaitTimeout",
]


class HodeiError(Exception):
    """The base of all errors of this package.

    `str(error)` says what is wrong and what to do.

    >>> try:
    ...     client.jobs.get("job_00000000000000000000000000")
    ... except hodei.NotFound as error:
    ...     print(error.code, error.reason)
    not_found JOB_NOT_FOUND
    """

    default_code: ClassVar[str] = "unknown"

    code: str
    """The code of the Connect protocol, in lower case: `"not_found"`."""
    reason: str
    """The server's reason, in upper case: `"JOB_NOT_FOUND"`. Empty when the server gave none."""
    message: str
    """What is wrong and what to do."""
    retry_after: float | None
    """When set, the same call may succeed after so many seconds."""
    accepted: tuple[str, ...]
    """The ids of the jobs that a call for several jobs has submitted before, or beside, what went wrong."""

    def __init__(
        self, message: str, *, code: str | None = None, reason: str = "", retry_after: float | None = None
    ) -> None:
        """Make an error; only this package needs to."""
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.retry_after = retry_after
        self.accepted = ()


class NotFound(HodeiError):
    """There is no such job, step, worker or secret."""

    default_code = "not_found"


class InvalidArgument(HodeiError):
    """A part of the request is wrong; the message names it."""

    default_code = "invalid_argument"


class FailedPrecondition(HodeiError):
    """The request is right, but not now: the job to cancel has ended already, for example."""

    default_code = "failed_precondition"


class PermissionDenied(HodeiError):
    """The caller lacks the permission that the message names."""

    default_code = "permission_denied"


class Unauthenticated(HodeiError):
    """The caller has not proved who they are, or the proof is refused."""

    default_code = "unauthenticated"


class QuotaExceeded(HodeiError):
    """A limit is reached; the message names it."""

    default_code = "resource_exhausted"


class Unavailable(HodeiError):
    """No server was reached, it is another one than the CA names, or it cannot answer now."""

    default_code = "unavailable"


class VersionSkew(HodeiError):
    """Client and server do not understand each other: one of them is too old, or the address is of something else."""

    default_code = "unimplemented"


class ConfigurationError(HodeiError):
    """What the caller or the environment says makes no sense. Nothing was sent."""

    default_code = "invalid_argument"


class WaitTimeout(HodeiError):
    """The caller's own time for a call or a wait is over. A job that was waited for goes on."""

    default_code = "deadline_exceeded"

    job: Any
    """The job that was waited for, as it stands: a `Job` or an `AsyncJob`; None when it was another call."""

    def __init__(self, message: str, *, job: JobSnapshot | None = None, reason: str = "") -> None:
        """Make an error; only this package needs to."""
        super().__init__(message, reason=reason)
        self.job = job


class JobError(HodeiError):
    """A job has ended, and not well. It is a `JobFailed`, a `JobCanceled` or a `JobTimeout`."""

    job: Any
    """The job: a `Job`, or an `AsyncJob` where an `AsyncClient` waited."""
    exit_code: int | None
    """The exit code of the step that decided the end, 128 + N where signal N ended it; None when nothing ran."""
    signal: str
    """The name of the signal that ended the step, `"SIGSEGV"`; empty when none did."""
    log_tail: tuple[str, ...]
    """The last 20 lines of the output."""
    url: str
    """The address of the job's page."""

    def __init__(self, message: str, job: JobSnapshot, log_tail: Sequence[str] = ()) -> None:
        """Make an error; only this package needs to."""
        super().__init__(message)
        self.job = job
        self.exit_code = job.exit_code
        self.signal = job.signal
        self.log_tail = tuple(log_tail)
        self.url = job.url


class JobFailed(JobError):
    """A job has failed, was lost with its worker, or was skipped.

    >>> try:
    ...     client.run("echo working; exit 7")
    ... except hodei.JobFailed as error:
    ...     print(error.exit_code, error.log_tail)
    7 ('working',)
    """

    default_code = "aborted"


class JobCanceled(JobError):
    """A job was canceled."""

    default_code = "canceled"


class JobTimeout(JobError):
    """A job, or a step, has run for as long as it may."""

    default_code = "deadline_exceeded"
