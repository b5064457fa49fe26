"""What a process of a job knows of itself, and asks of the agent."""

from __future__ import annotations

import base64
import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hodei.errors import ConfigurationError, FailedPrecondition, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

# For one request; the agent takes no longer either.
_LIMIT = 10.0
_LARGEST_ANSWER = 1 << 20


@dataclass(frozen=True)
class Current:
    """The job that this process belongs to."""

    job_id: str
    job_name: str
    namespace: str
    queue: str
    attempt: int
    """Counted from 1."""
    step: str
    """The name of the step."""
    step_index: int
    """Which step it is; the first is 0."""
    agent_socket: str
    """Where the agent answers; empty when it does not."""

    def mask(self, value: str | bytes, name: str | None = None) -> list[str]:
        """Have a secret replaced by `****` in everything that the job writes from now on.

        Args:
            value: The secret.
            name: The name under which replacements are counted.

        Returns:
            What will not be replaced, in sentences; most often nothing.
        """
        raw = value.encode() if isinstance(value, str) else value
        request = {"name": name or "", "value": base64.b64encode(raw).decode()}
        return [str(warning) for warning in self._ask({"mask": request}).get("warnings") or []]

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the job is: from 0 to 1, and a word about it."""
        if not 0 <= fraction <= 1:
            raise InvalidArgument(f"{fraction} is no progress; it goes from 0 to 1")
        self._ask({"progress": {"fraction": fraction, "message": message}})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one JSON value to the agent, and return the one that it answers."""
        if not self.agent_socket:
            raise ConfigurationError("HODEI_AGENT_SOCKET is not set: the agent of this job has no socket")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_LIMIT)
                connection.connect(self.agent_socket)
                connection.sendall(json.dumps(request).encode() + b"\n")
                answer = json.loads(_read(connection))
        except (OSError, ValueError) as error:
            raise Unavailable(f"the agent at {self.agent_socket} does not answer: {error}") from error
        if not isinstance(answer, dict):
            raise Unavailable(f"the agent at {self.agent_socket} answers with something else")
        if answer.get("error"):
            raise FailedPrecondition(str(answer["error"]))
        return answer


def _read(connection: socket.socket) -> bytes:
    data = bytearray()
    while part := connection.recv(65536):
        data += part
        if len(data) > _LARGEST_ANSWER:
            raise ValueError("the answer is too long")
    return bytes(data)


def current(environment: Mapping[str, str] | None = None) -> Current:
    """Return the job that this process belongs to.

    Args:
        environment: The variables to look at; those of the process when not given.

    Raises:
        ConfigurationError: This is no process of a job.

    >>> hodei.current()
    Traceback (most recent call last):
    hodei.errors.ConfigurationError: HODEI_JOB_ID is not set: this is not a process of a job
    """
    variables = os.environ if environment is None else environment
    if not variables.get("HODEI_JOB_ID"):
        raise ConfigurationError("HODEI_JOB_ID is not set: this is not a process of a job")
    return Current(
        job_id=variables["HODEI_JOB_ID"],
        job_name=variables.get("HODEI_JOB_NAME", ""),
        namespace=variables.get("HODEI_NAMESPACE", ""),
        queue=variables.get("HODEI_QUEUE", ""),
        attempt=_number(variables, "HODEI_ATTEMPT"),
        step=variables.get("HODEI_STEP", ""),
        step_index=_number(variables, "HODEI_STEP_INDEX"),
        agent_socket=variables.get("HODEI_AGENT_SOCKET", ""),
    )


def _number(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name) or "0"
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f'{name} is "{text}", which is no number') from None
