"""Specs as Python values, and as messages."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

import pytest
from protobuf.wkt import Duration, Timestamp

import hodei
from hodei._batch import batches, groups
from hodei._gen.hodei.v1 import job_pb as pb
from hodei._gen.hodei.v1.job_service_pb import SubmitJobRequest
from hodei._spec import JobOptions, constraint_message, memory_mib


def test_options_are_the_fields_of_a_spec() -> None:
    fields = {field.name for field in dataclasses.fields(hodei.JobSpec)} - {"command"}
    assert set(JobOptions.__annotations__) == fields


def test_a_list_is_a_program_and_a_text_is_a_script() -> None:
    (program,) = hodei.JobSpec(["cat", PurePosixPath("/tmp/x")]).message().steps
    assert program.action is not None
    assert (program.action.field, program.action.value) == ("command", pb.Command(argv=["cat", "/tmp/x"]))
    (script,) = hodei.JobSpec("echo hi", shell=["bash", "-c"]).message().steps
    assert script.action is not None
    assert (script.action.field, script.action.value) == ("script", pb.Script(text="echo hi", shell=["bash", "-c"]))


def test_everything_arrives() -> None:
    message = hodei.JobSpec(
        ["true"],
        name="n",
        namespace="ns",
        queue="q",
        labels={"a": "b"},
        env={"X": "1"},
        cwd="/srv",
        secrets=["TOKEN", hodei.Secret("KEY", env="KEY_FILE", file=True)],
        terminal=(100, 40),
        grace=timedelta(seconds=2),
        cpus=1.5,
        memory="2Gi",
        gpus=2,
        extras={"licence": 1},
        constraints=["os=linux"],
        affinities=[hodei.Affinity("zone=a", -5)],
        tolerations=["slow"],
        requires=["memory-limit"],
        spread="zone",
        apart="hostname",
        priority=7,
        timeout=0.3,
        max_attempts=3,
        backoff=hodei.Backoff(initial=1, max=timedelta(minutes=1), factor=3),
        run_after=datetime(2030, 1, 1, tzinfo=UTC),
        concurrency=hodei.Concurrency("deploy", limit=2, policy="LATEST"),
        gang=hodei.Gang("g", 4),
    ).message("elsewhere")
    step = message.steps[0]
    assert (message.name, message.namespace, message.queue) == ("n", "ns", "q")
    assert (dict(message.labels), dict(message.env)) == ({"a": "b"}, {"X": "1"})
    assert step.working_dir == "/srv"
    assert list(step.secrets) == [pb.SecretRef(name="TOKEN"), pb.SecretRef(name="KEY", env="KEY_FILE", file=True)]
    assert (step.terminal, step.grace) == (pb.Terminal(columns=100, rows=40), Duration(seconds=2))
    assert message.resources == pb.Resources(milli_cpu=1500, memory_mib=2048, extras={"licence": 1, "gpu": 2})
    assert message.constraints[0] == constraint_message("os=linux")
    assert message.affinities[0].weight == -5
    assert (list(message.tolerations), list(message.requires)) == (["slow"], ["memory-limit"])
    assert (message.spread, message.apart, message.priority) == ("zone", "hostname", 7)
    assert (message.timeout, message.max_attempts) == (Duration(nanos=300_000_000), 3)
    assert message.backoff == pb.Backoff(initial=Duration(seconds=1), max=Duration(seconds=60), factor=3)
    assert message.run_after == Timestamp.from_datetime(datetime(2030, 1, 1, tzinfo=UTC))
    assert message.concurrency == pb.Concurrency(key="deploy", limit=2, policy=pb.ConcurrencyPolicy.LATEST)
    assert message.gang == pb.Gang(name="g", size=4)


def test_steps_take_what_they_do_not_say() -> None:
    first, second = (
        hodei.JobSpec(steps=[hodei.Step("a", cwd="/own", name="one"), hodei.Step("b")], cwd="/srv", secrets=["S"])
        .message()
        .steps
    )
    assert (first.name, first.working_dir, second.working_dir) == ("one", "/own", "/srv")
    assert second.secrets[0].name == "S"


def test_nothing_is_sent_that_was_not_said() -> None:
    message = hodei.JobSpec(["true"]).message("team")
    assert (message.namespace, message.resources, message.timeout, message.run_after) == ("team", None, None, None)
    assert (message.backoff, message.concurrency, message.gang) == (None, None, None)


def test_a_spec_with_changes() -> None:
    spec = hodei.JobSpec(["true"], name="a", priority=1)
    assert hodei.JobSpec.of(spec, {}) is spec
    assert hodei.JobSpec.of(spec, {"name": "b"}) == hodei.JobSpec(["true"], name="b", priority=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to run"),
        ({"command": ["true"], "steps": [hodei.Step("x")]}, "a command and steps"),
        ({"command": ["true"], "memory": "2 gigs"}, '"2 gigs" is not an amount'),
        ({"command": ["true"], "constraints": ["=x"]}, '"=x" is no constraint'),
        ({"command": ["true"], "concurrency": hodei.Concurrency("k", policy="x")}, "none of QUEUE"),
        ({"command": ["true"], "cpus": 1e12}, "the spec of the job"),
        ({"command": ["true"], "priority": 1 << 40}, "the spec of the job"),
    ],
)
def test_what_makes_no_sense_is_not_sent(options: Any, message: str) -> None:
    with pytest.raises(hodei.InvalidArgument, match=message):
        hodei.JobSpec(**options).message()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (512, 512),
        ("512Mi", 512),
        ("2Gi", 2048),
        ("1.5G", 1431),
        ("1048577", 2),
        ("1Ti", 1 << 20),
        ("64MiB", 64),
        ("1e6K", 954),
    ],
)
def test_memory(text: int | str, wanted: int) -> None:
    assert memory_mib(text) == wanted


@pytest.mark.parametrize("text", ["", "Gi", "-1Gi", "1.2.3G", "2 Gi", "2gi"])
def test_no_memory(text: str) -> None:
    with pytest.raises(hodei.InvalidArgument):
        memory_mib(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("os=linux", ("os", "IN", ("linux",))),
        ("zone=a|b", ("zone", "IN", ("a", "b"))),
        ("arch!=arm64", ("arch", "NOT_IN", ("arm64",))),
        ("gpu", ("gpu", "EXISTS", ())),
        ("!gpu", ("gpu", "NOT_EXISTS", ())),
        ("mem>16", ("mem", "GREATER", ("16",))),
        ("mem< 64", ("mem", "LESS", ("64",))),
        ("cuda~>=12.2, <13", ("cuda", "VERSION", (">=12.2, <13",))),
        ("k=", ("k", "IN", ("",))),
    ],
)
def test_constraint(text: str, wanted: tuple[str, str, tuple[str, ...]]) -> None:
    constraint = hodei.Constraint.parse(text)
    assert (constraint.label, constraint.operator, constraint.values) == wanted
    assert constraint_message(text).operator.name == wanted[1]


@pytest.mark.parametrize("text", ["", "!", "=x", "!a=b", "a==b", "a!==b", "mem>=5", "!!a"])
def test_no_constraint(text: str) -> None:
    with pytest.raises(hodei.InvalidArgument, match="constraint"):
        hodei.Constraint.parse(text)


def test_batches() -> None:
    requests = [SubmitJobRequest(spec=pb.JobSpec(name="x" * size)) for size in (10, 10, 10, 500, 10)]
    sizes = [[len(each.to_binary()) for each in batch] for batch in batches(requests, 2, 200)]
    assert [len(batch) for batch in sizes] == [2, 1, 1, 1]
    assert list(batches([])) == []
    assert [len(group) for group in groups(list(range(25)), 10)] == [10, 10, 5]
