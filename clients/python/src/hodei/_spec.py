"""What a job is: its spec as Python values, and as the message that is sent."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias, TypedDict, TypeVar

from protobuf import Enum, Oneof
from protobuf.wkt import Duration, Timestamp

from hodei._gen.hodei.v1 import job_pb as pb
from hodei.errors import InvalidArgument

Argument: TypeAlias = "str | os.PathLike[str]"
Command: TypeAlias = "str | Sequence[Argument]"
"""A list is a program and its arguments, started without a shell. A text is a script for `sh -e -c`."""
Seconds: TypeAlias = "float | timedelta"

_E = TypeVar("_E", bound=Enum)


@dataclass(frozen=True)
class Constraint:
    """A condition on a label of the worker.

    A text does as well: `"zone=a|b"`, `"arch!=arm64"`, `"gpu"`, `"!gpu"`, `"mem>16"`, `"cuda~>=12.2, <13"`.

    >>> hodei.Constraint.parse("zone=a|b")
    Constraint(label='zone', operator='IN', values=('a', 'b'))
    """

    label: str
    operator: str
    """`IN`, `NOT_IN`, `EXISTS`, `NOT_EXISTS`, `LESS`, `GREATER` or `VERSION`."""
    values: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read a condition. Whether the label and the values are good the server says."""
        match = _CONSTRAINT.fullmatch(text)
        if not match:
            raise InvalidArgument(
                f'"{text}" is no constraint; write label=value, label=a|b, label!=value, label, !label, label<number, '
                "label>number, or label~range for versions"
            )
        absent, label, sign, value = match.groups()
        if not sign:
            return cls(label, "NOT_EXISTS" if absent else "EXISTS")
        if sign != "~" and value.startswith("="):
            raise InvalidArgument(
                f'constraint "{text}": there is no {sign}=; '
                "use = and != for texts, < and > for numbers, and ~ for versions"
            )
        values = value.split("|") if sign in ("=", "!=") else [value.strip()]
        return cls(label, _SIGNS[sign], tuple(values))


_SIGNS = {"=": "IN", "!=": "NOT_IN", "<": "LESS", ">": "GREATER", "~": "VERSION"}
_CONSTRAINT = re.compile(r"(?:(!)(?=[^=!<>~]+$))?([^=!<>~]+)(?:(!=|=|<|>|~)(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Affinity:
    """Makes workers more welcome, or less so: from -100 to 100, and not 0."""

    constraint: str | Constraint
    weight: int


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next attempt: initial * factor^(attempt-1), at most max."""

    initial: Seconds | None = None
    """1 second when not set."""
    max: Seconds | None = None
    """5 minutes when not set."""
    factor: float = 0
    """2 when not set."""


@dataclass(frozen=True)
class Concurrency:
    """Limits how many jobs of a namespace with the same key run at the same time."""

    key: str
    limit: int = 1
    policy: str = "QUEUE"
    """What becomes of older jobs: `QUEUE`, `LATEST` (only the newest waits) or `CANCEL_RUNNING` (and none runs)."""


@dataclass(frozen=True)
class Gang:
    """Jobs of a queue that start together or not at all."""

    name: str
    size: int


@dataclass(frozen=True)
class Secret:
    """A secret of the job's namespace that a step gets, by its name."""

    name: str
    env: str = ""
    """The variable that has the value, or the path of the file; the secret's name when not set."""
    file: bool = False
    """Give the value in a file, which is gone when the attempt has ended."""


@dataclass(frozen=True)
class Step:
    """One process of a job.

    >>> job = client.run(steps=[hodei.Step(["echo", "one"], name="first"), hodei.Step("echo two")])
    >>> [(step.name, step.state.value) for step in job.steps]
    [('first', 'SUCCEEDED'), ('step-2', 'SUCCEEDED')]
    """

    command: Command
    """A list is a program and its arguments; a text is a script."""
    name: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of the job's."""
    cwd: Argument = ""
    """The folder on the worker; one that is made for the attempt when not set."""
    timeout: Seconds | None = None
    """How long the step may run."""
    grace: Seconds | None = None
    """The time between SIGTERM and SIGKILL when the step is stopped; 10 seconds when not set."""
    secrets: Sequence[str | Secret] = ()
    terminal: bool | tuple[int, int] = False
    """Run on a terminal, of so many columns and rows when they are given."""
    shell: Sequence[str] = ()
    """The shell of a script and its options; `sh -e -c` when not set."""


class JobOptions(TypedDict, total=False):
    """What may be said of a job beside its command. `JobSpec` says what each is."""

    steps: Sequence[Step]
    name: str
    namespace: str
    queue: str
    labels: Mapping[str, str]
    env: Mapping[str, str]
    cwd: Argument
    shell: Sequence[str]
    secrets: Sequence[str | Secret]
    terminal: bool | tuple[int, int]
    grace: Seconds | None
    cpus: float
    memory: int | str
    gpus: int
    extras: Mapping[str, int]
    constraints: Sequence[str | Constraint]
    affinities: Sequence[Affinity]
    tolerations: Sequence[str]
    requires: Sequence[str]
    spread: str
    apart: str
    priority: int
    timeout: Seconds | None
    max_attempts: int
    backoff: Seconds | Backoff | None
    run_after: datetime | None
    concurrency: str | Concurrency | None
    gang: Gang | None


@dataclass(frozen=True)
class JobSpec:
    """What a job is. The options of `submit`, `run` and `map` are its fields.

    >>> nightly = hodei.JobSpec(["echo", "report"], name="nightly", max_attempts=3)
    >>> client.run(nightly, labels={"team": "data"}).labels
    {'team': 'data'}
    """

    command: Command | None = None
    """A list is a program and its arguments; a text is a script. Either this or `steps`."""
    steps: Sequence[Step] = ()
    """Steps that run one after the other on one worker. A step that fails ends the job."""
    name: str = ""
    """A name for people; need not be unique."""
    namespace: str = ""
    """The tenant that owns the job; the client's when not set."""
    queue: str = ""
    """The queue that the job waits in; the default of its namespace when not set."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """For filters and reports."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of every step."""
    cwd: Argument = ""
    """The folder on the worker, of the command and of steps that name none."""
    shell: Sequence[str] = ()
    """The shell of scripts and its options, of the command and of steps that name none; `sh -e -c` when not set."""
    secrets: Sequence[str | Secret] = ()
    """Secrets of the namespace, for the command and for steps that name none."""
    terminal: bool | tuple[int, int] = False
    """Run the command on a terminal, of so many columns and rows when they are given."""
    grace: Seconds | None = None
    """The time between SIGTERM and SIGKILL, for the command and for steps that name none; 10 seconds when not set."""
    cpus: float = 0
    """CPUs to reserve: 0.5 is half of one."""
    memory: int | str = 0
    """Memory to reserve: mebibytes, or a text like `"512Mi"` or `"2Gi"`."""
    gpus: int = 0
    """GPUs to reserve: the extra `gpu`."""
    extras: Mapping[str, int] = field(default_factory=dict)
    """Other things that workers have, by name."""
    constraints: Sequence[str | Constraint] = ()
    """Conditions on the labels of the worker; all must hold."""
    affinities: Sequence[Affinity] = ()
    """Workers that the job likes, or dislikes."""
    tolerations: Sequence[str] = ()
    """Taints of workers that do not keep the job away."""
    requires: Sequence[str] = ()
    """What the worker's agent must be able to do: `"memory-limit"`, for example."""
    spread: str = ""
    """A label of workers: jobs of this name go where the fewest of them run."""
    apart: str = ""
    """A label of workers: no two jobs of this name run at the same value of it."""
    priority: int = 0
    """From -1000 to 1000; higher starts first."""
    timeout: Seconds | None = None
    """How long one attempt may run; 24 hours when not set."""
    max_attempts: int = 0
    """How often the job may be started in all; once when not set."""
    backoff: Seconds | Backoff | None = None
    """How long to wait before the second attempt; the wait doubles with each further one."""
    run_after: datetime | None = None
    """The job does not start before this time. A time without a zone is local."""
    concurrency: str | Concurrency | None = None
    """A key: one job with it runs at a time, or as many as `Concurrency` says."""
    gang: Gang | None = None
    """The jobs that start together with this one."""

    @classmethod
    def of(cls, command: Command | JobSpec | None, options: JobOptions) -> JobSpec:
        """Return the spec of a command, or a spec with some options changed."""
        if isinstance(command, JobSpec):
            return dataclasses.replace(command, **options) if options else command
        return cls(command, **options)

    def message(self, namespace: str = "") -> pb.JobSpec:
        """Return the message that is sent, in a namespace when the spec names none."""
        try:
            message = self._message(namespace)
            message.to_binary()  # finds numbers and texts that cannot be sent
        except (ValueError, OverflowError) as error:
            raise InvalidArgument(f"the spec of the job cannot be sent: {error}") from error
        return message

    def _message(self, namespace: str) -> pb.JobSpec:
        extras = dict(self.extras)
        if self.gpus:
            extras["gpu"] = self.gpus
        spec = pb.JobSpec(
            name=self.name,
            namespace=self.namespace or namespace,
            queue=self.queue,
            labels=dict(self.labels),
            steps=[self._step(step) for step in self._all_steps()],
            env=dict(self.env),
            constraints=[constraint_message(each) for each in self.constraints],
            affinities=[
                pb.Affinity(constraint=constraint_message(each.constraint), weight=each.weight)
                for each in self.affinities
            ],
            tolerations=list(self.tolerations),
            requires=list(self.requires),
            spread=self.spread,
            apart=self.apart,
            priority=self.priority,
            timeout=duration(self.timeout),
            max_attempts=self.max_attempts,
            backoff=_backoff(self.backoff),
            concurrency=_concurrency(self.concurrency),
        )
        if self.cpus or self.memory or extras:
            spec.resources = pb.Resources(
                milli_cpu=round(self.cpus * 1000), memory_mib=memory_mib(self.memory), extras=extras
            )
        if self.run_after is not None:
            spec.run_after = Timestamp.from_datetime(self.run_after.astimezone(UTC))
        if self.gang is not None:
            spec.gang = pb.Gang(name=self.gang.name, size=self.gang.size)
        return spec

    def _all_steps(self) -> Sequence[Step]:
        if self.command is None:
            if not self.steps:
                raise InvalidArgument("the job has nothing to run; give it a command or steps")
            return self.steps
        if self.steps:
            raise InvalidArgument("the job has a command and steps; give it one of them")
        return (Step(self.command, terminal=self.terminal),)

    def _step(self, step: Step) -> pb.Step:
        message = pb.Step(
            name=step.name,
            action=_action(step.command, step.shell or self.shell),
            env=dict(step.env),
            working_dir=os.fspath(step.cwd or self.cwd),
            timeout=duration(step.timeout),
            grace=duration(self.grace if step.grace is None else step.grace),
            secrets=[_secret(each) for each in step.secrets or self.secrets],
        )
        if isinstance(step.terminal, tuple):
            message.terminal = pb.Terminal(columns=step.terminal[0], rows=step.terminal[1])
        elif step.terminal:
            message.terminal = pb.Terminal()
        return message


def _action(
    command: Command, shell: Sequence[str]
) -> Oneof[Literal["command"], pb.Command] | Oneof[Literal["script"], pb.Script]:
    if isinstance(command, str):
        script: Oneof[Literal["script"], pb.Script] = Oneof("script", pb.Script(text=command, shell=list(shell)))
        return script
    argv = [os.fspath(argument) for argument in command]
    program: Oneof[Literal["command"], pb.Command] = Oneof("command", pb.Command(argv=argv))
    return program


def _secret(secret: str | Secret) -> pb.SecretRef:
    if isinstance(secret, str):
        return pb.SecretRef(name=secret)
    return pb.SecretRef(name=secret.name, env=secret.env, file=secret.file)


def constraint_message(constraint: str | Constraint) -> pb.Constraint:
    """Return the message of a condition."""
    if isinstance(constraint, str):
        constraint = Constraint.parse(constraint)
    operator = _member(pb.ConstraintOperator, constraint.operator)
    return pb.Constraint(label=constraint.label, operator=operator, values=list(constraint.values))


def _member(enum: type[_E], name: str) -> _E:
    try:
        return enum[name.upper()]
    except KeyError:
        names = ", ".join(each.name for each in enum if each)
        raise InvalidArgument(f'"{name}" is none of {names}') from None


def _concurrency(value: str | Concurrency | None) -> pb.Concurrency | None:
    if value is None:
        return None
    if isinstance(value, str):
        return pb.Concurrency(key=value)
    return pb.Concurrency(key=value.key, limit=value.limit, policy=_member(pb.ConcurrencyPolicy, value.policy))


def _backoff(value: Seconds | Backoff | None) -> pb.Backoff | None:
    if value is None:
        return None
    if not isinstance(value, Backoff):
        value = Backoff(initial=value)
    return pb.Backoff(initial=duration(value.initial), max=duration(value.max), factor=value.factor)


def seconds(value: Seconds) -> float:
    """Return a time span in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def duration(value: Seconds | None) -> Duration | None:
    """Return the message of a time span."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        return Duration.from_timedelta(value)
    return Duration.from_nanos(round(value * 1e9))


_MEMORY = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)(Ki|Mi|Gi|Ti|K|M|G|T|)B?")
_UNITS = {
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "": 1,
}  # fmt: skip


def memory_mib(value: int | str) -> int:
    """Read an amount of memory, in mebibytes, rounded up. A number has them already, a text says its unit."""
    if not isinstance(value, str):
        return value
    match = _MEMORY.fullmatch(value)
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match and math.isfinite(number):
        return math.ceil(number * _UNITS[match[2]] / (1 << 20))
    raise InvalidArgument(f'"{value}" is not an amount of memory like 512Mi or 2Gi')
