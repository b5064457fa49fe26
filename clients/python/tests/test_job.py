"""What a job says of itself, and the errors of jobs that did not end well."""

from __future__ import annotations

import pytest
from protobuf.wkt import Timestamp

from hodei import Explanation, JobSnapshot, JobState, Worker, errors
from hodei._core import _end_message
from hodei._gen.hodei.v1 import job_pb as pb
from hodei._gen.hodei.v1.job_service_pb import ExplainJobResponse, FilterCount
from hodei._gen.hodei.v1.worker_service_pb import Worker as WorkerMessage
from hodei._gen.hodei.v1.worker_service_pb import WorkerState
from hodei._job import TERMINAL


def job(state: pb.JobState, cause: pb.Cause | None = None, **fields: object) -> JobSnapshot:
    spec = pb.JobSpec(name="nightly", labels={"a": "b"})
    return JobSnapshot(pb.Job(id="job_1", spec=spec, state=state, cause=cause, **fields), "https://jobs")  # type: ignore[arg-type]


def test_states_are_those_of_the_api() -> None:
    assert [state.value for state in JobState] == [state.name for state in pb.JobState]
    assert {state.name for state in TERMINAL} == {state.name for state in pb.JobState if state >= pb.JobState.SUCCEEDED}


def test_a_job() -> None:
    waiting = job(pb.JobState.QUEUED, pending_reason="no worker", create_time=Timestamp(seconds=1))
    assert (waiting.name, waiting.labels, waiting.state, waiting.done) == ("nightly", {"a": "b"}, "QUEUED", False)
    assert (waiting.exit_code, waiting.signal, waiting.cause, waiting.steps) == (None, "", None, ())
    assert (waiting.pending_reason, waiting.url) == ("no worker", "https://jobs/jobs/job_1")
    assert waiting.created is not None
    assert waiting.created.timestamp() == 1
    assert (waiting.started, waiting.ended, waiting.progress) == (None, None, None)
    assert repr(waiting) == "<JobSnapshot job_1 'nightly' QUEUED>"
    assert waiting == job(pb.JobState.FAILED)
    assert (
        str(job(pb.JobState.RUNNING, progress=pb.Progress(fraction=0.4, message="halfway")).progress) == "40% halfway"
    )


def test_what_is_known_changes_with_the_job() -> None:
    changing = job(pb.JobState.RUNNING)
    assert changing.cause is None
    cause = pb.Cause(kind=pb.CauseKind.EXIT_CODE, exit_code=7)
    changing._set(job(pb.JobState.FAILED, cause).message)
    assert changing.exit_code == 7
    assert str(changing.cause) == "exit code 7"


def test_a_state_of_a_newer_server() -> None:
    assert job(pb.JobState(99)).state is JobState.UNSPECIFIED


@pytest.mark.parametrize(
    ("state", "cause", "exit_code", "signal"),
    [
        (pb.JobState.SUCCEEDED, pb.Cause(kind=pb.CauseKind.EXIT_CODE), 0, ""),
        (pb.JobState.FAILED, pb.Cause(kind=pb.CauseKind.EXIT_CODE, exit_code=3), 3, ""),
        (pb.JobState.FAILED, pb.Cause(kind=pb.CauseKind.SIGNAL, exit_code=139, signal="SIGSEGV"), 139, "SIGSEGV"),
        (pb.JobState.TIMED_OUT, pb.Cause(kind=pb.CauseKind.TIMEOUT), None, ""),
        (pb.JobState.LOST, pb.Cause(kind=pb.CauseKind.WORKER_LOST), None, ""),
    ],
)
def test_exit_codes(state: pb.JobState, cause: pb.Cause, exit_code: int | None, signal: str) -> None:
    ended = job(state, cause)
    assert (ended.exit_code, ended.signal, ended.done) == (exit_code, signal, True)


def test_the_error_of_a_job() -> None:
    failed = job(
        pb.JobState.FAILED,
        pb.Cause(kind=pb.CauseKind.EXIT_CODE, exit_code=7, step="test"),
        steps=[pb.StepStatus(name="build"), pb.StepStatus(name="test")],
    )
    message = _end_message(failed, ["one", "two"])
    assert message == (
        'job job_1 "nightly" failed in step "test": exit code 7\n'
        "Its output ends with:\n  one\n  two\n"
        "See https://jobs/jobs/job_1"
    )
    error = errors.JobFailed(message, failed, ["one", "two"])
    assert isinstance(error, errors.JobError)
    assert isinstance(error, errors.HodeiError)
    assert (error.job, error.exit_code, error.log_tail, error.url) == (failed, 7, ("one", "two"), failed.url)


def test_no_name_of_an_error_hides_one_of_python() -> None:
    import builtins

    assert not [name for name in errors.__all__ if hasattr(builtins, name)]


def test_other_answers() -> None:
    message = ExplainJobResponse(text="no room", advice="wait", filters=[FilterCount(filter="room", workers=2)])
    explanation = Explanation(message)
    assert str(explanation) == "no room; wait"
    assert (explanation.filters, explanation.earliest) == ({"room": 2}, None)
    capacity = pb.Resources(milli_cpu=1500, memory_mib=512, extras={"gpu": 1})
    worker = Worker(WorkerMessage(id="wkr_1", name="w", state=WorkerState.READY, capacity=capacity))
    assert (worker.cpus, worker.memory_mib, worker.extras, worker.state) == (1.5, 512, {"gpu": 1}, "READY")
