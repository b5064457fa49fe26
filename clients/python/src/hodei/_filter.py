"""Which jobs are meant, and a watch of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from connectrpc.code import Code

from hodei._gen.hodei.v1 import job_pb, job_service_pb
from hodei._job import JobState
from hodei.errors import InvalidArgument

if TYPE_CHECKING:
    from connectrpc.errors import ConnectError


class FilterOptions(TypedDict, total=False):
    """Which jobs are meant; all that is set must match."""

    name: str
    """Jobs with this name."""
    labels: Mapping[str, str]
    """Jobs with all of these labels."""
    states: Sequence[JobState | str]
    """Jobs in one of these states."""
    queue: str
    """Jobs of this queue."""
    namespace: str
    """Jobs of this namespace; the client's when not set. `"*"` means all."""
    ids: Sequence[str]
    """Jobs with one of these ids, at most 1,000."""


def job_filter(options: FilterOptions, namespace: str = "") -> job_service_pb.JobFilter:
    """Return the message of a filter, in a namespace when it names none."""
    return job_service_pb.JobFilter(
        namespace=options.get("namespace") or namespace,
        queue=options.get("queue", ""),
        states=[_state(state) for state in options.get("states", ())],
        labels=dict(options.get("labels", {})),
        name=options.get("name", ""),
        ids=list(options.get("ids", ())),
    )


def _state(state: str) -> job_pb.JobState:
    try:
        return job_pb.JobState[state.upper()]
    except KeyError:
        names = ", ".join(each for each in JobState if each is not JobState.UNSPECIFIED)
        raise InvalidArgument(f'"{state}" is no state of a job; there are {names}') from None


class Watch:
    """A watch of jobs. It goes on after the last message that was taken."""

    over = False

    def __init__(self, jobs: job_service_pb.JobFilter) -> None:
        self.request = job_service_pb.WatchJobsRequest(filter=jobs)

    def take(self, message: job_service_pb.WatchJobsResponse) -> list[job_pb.Job]:
        """Return the jobs of a message, and go on after them."""
        self.request.resume_token = message.resume_token
        return list(message.jobs)

    def starts_over(self, error: ConnectError) -> bool:
        """Begin anew when the place to go on from is too long ago: everything is sent again then."""
        if error.code != Code.OUT_OF_RANGE or not self.request.resume_token:
            return False
        self.request.resume_token = ""
        return True
