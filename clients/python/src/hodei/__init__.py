"""The client of Hodei Jobs: submit jobs, follow their output live, wait for their end.

>>> import hodei
>>> with hodei.Client() as client:
...     job = client.submit(["echo", "hello"], name="greeting")
...     for line in job.logs(follow=True):
...         print(line)
...     print(job.wait().exit_code)
hello
0

`Client` is for callers that block, `AsyncClient` for asyncio; their methods are the same. All errors are a `HodeiError`.
Inside a job, `current()` says which one it is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hodei import errors as errors
from hodei._version import __version__

if TYPE_CHECKING:
    from hodei._aio import AsyncClient as AsyncClient
    from hodei._aio import AsyncJob as AsyncJob
    from hodei._aio import AsyncJobs as AsyncJobs
    from hodei._aio import AsyncWorkers as AsyncWorkers
    from hodei._answers import Explanation as Explanation
    from hodei._answers import Worker as Worker
    from hodei._client import Client as Client
    from hodei._client import Job as Job
    from hodei._client import Jobs as Jobs
    from hodei._client import Workers as Workers
    from hodei._config import Config as Config
    from hodei._current import Current as Current
    from hodei._current import current as current
    from hodei._job import Cause as Cause
    from hodei._job import JobSnapshot as JobSnapshot
    from hodei._job import JobState as JobState
    from hodei._job import Progress as Progress
    from hodei._job import StepState as StepState
    from hodei._job import StepStatus as StepStatus
    from hodei._logs import LogChunk as LogChunk
    from hodei._logs import LogLine as LogLine
    from hodei._raw import AsyncRaw as AsyncRaw
    from hodei._raw import Raw as Raw
    from hodei._spec import Affinity as Affinity
    from hodei._spec import Backoff as Backoff
    from hodei._spec import Concurrency as Concurrency
    from hodei._spec import Constraint as Constraint
    from hodei._spec import Gang as Gang
    from hodei._spec import JobSpec as JobSpec
    from hodei._spec import Secret as Secret
    from hodei._spec import Step as Step
    from hodei.errors import ConfigurationError as ConfigurationError
    from hodei.errors import FailedPrecondition as FailedPrecondition
    from hodei.errors import HodeiError as HodeiError
    from hodei.errors import InvalidArgument as InvalidArgument
    from hodei.errors import JobCanceled as JobCanceled
    from hodei.errors import JobError as JobError
    from hodei.errors import JobFailed as JobFailed
    from hodei.errors import JobTimeout as JobTimeout
    from hodei.errors import NotFound as NotFound
    from hodei.errors import PermissionDenied as PermissionDenied
    from hodei.errors import QuotaExceeded as QuotaExceeded
    from hodei.errors import Unauthenticated as Unauthenticated
    from hodei.errors import Unavailable as Unavailable
    from hodei.errors import VersionSkew as VersionSkew
    from hodei.errors import WaitTimeout as WaitTimeout

# Names are imported when they are used: the transport and the generated messages take a while, and a program that only
# catches errors, or asks for `current()` inside of a job, needs neither.
_HOMES = {
    "hodei._aio": ("AsyncClient", "AsyncJob", "AsyncJobs", "AsyncWorkers"),
    "hodei._answers": ("Explanation", "Worker"),
    "hodei._client": ("Client", "Job", "Jobs", "Workers"),
    "hodei._config": ("Config",),
    "hodei._current": ("Current", "current"),
    "hodei._job": ("Cause", "JobSnapshot", "JobState", "Progress", "StepState", "StepStatus"),
    "hodei._logs": ("LogChunk", "LogLine"),
    "hodei._raw": ("AsyncRaw", "Raw"),
    "hodei._spec": ("Affinity", "Backoff", "Concurrency", "Constraint", "Gang", "JobSpec", "Secret", "Step"),
    "hodei.errors": (
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
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604 - the names above
    "__version__",
    *_HOME_OF,
]


if not TYPE_CHECKING:  # a type checker would take every name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
