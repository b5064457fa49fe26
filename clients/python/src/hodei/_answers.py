"""What the server says of other things than jobs and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from hodei._gen.hodei.v1 import job_service_pb, worker_service_pb


class Explanation:
    """Why a job waits. `str(explanation)` is one sentence, and what would help."""

    def __init__(self, message: job_service_pb.ExplainJobResponse) -> None:
        """Make an explanation of the server's message; only this package needs to."""
        self.message = message
        """The server's message, with all that it says."""
        self.text: str = message.text
        """Why, in one sentence."""
        self.advice: str = message.advice
        """What would let it start; empty when nothing is to be done but to wait."""
        self.limit: str = message.limit
        """The limit that binds; empty: none."""
        self.workers: int = message.workers
        """How many workers are known."""
        self.fitting: int = message.fitting
        """How many of them can take the job now."""
        self.ahead: int = message.ahead
        """How many jobs of its queue are more urgent."""
        self.earliest: datetime | None = message.earliest.to_datetime() if message.earliest else None
        """When it may start; None: nobody can tell."""
        self.filters: dict[str, int] = {each.filter: each.workers for each in message.filters}
        """How many workers each filter refuses."""

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}" if self.advice else self.text

    def __repr__(self) -> str:
        return f"Explanation({str(self)!r})"


class Worker:
    """A machine that runs jobs."""

    def __init__(self, message: worker_service_pb.Worker) -> None:
        """Make a worker of the server's message; only this package needs to."""
        self.message = message
        """The server's message, with all that it says."""
        self.id: str = message.id
        """The id: `wkr_` and a ULID."""
        self.name: str = message.name
        """The name that its agent gave."""
        self.state: str = message.state.name or "UNSPECIFIED"
        """`READY`, `DRAINING`, `DISCONNECTED`, `LOST` or `SUSPENDED`."""
        self.labels: dict[str, str] = dict(message.labels)
        """Labels, for constraints."""
        self.cpus: float = message.capacity.milli_cpu / 1000 if message.capacity else 0.0
        """The CPUs that it has for jobs."""
        self.memory_mib: int = message.capacity.memory_mib if message.capacity else 0
        """The memory that it has for jobs, in mebibytes."""
        self.extras: dict[str, int] = dict(message.capacity.extras) if message.capacity else {}
        """Other things that it has."""
        self.job_ids: tuple[str, ...] = tuple(message.job_ids)
        """The jobs that it has, of those that the caller may see."""
        self.version: str = message.agent_version
        """The version of its agent."""

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.name!r} {self.state}>"
