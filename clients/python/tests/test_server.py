"""What the shared cases do not look at, against a server."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

import hodei
from hodei._gen.hodei.v1.job_service_pb import GetJobRequest
from hodei._security import pin_of

pytestmark = pytest.mark.server

SOURCE = str(Path(hodei.__file__).parents[1])


def sockets() -> int:
    """Count the sockets of this process."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that listed them
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def settled(wanted: int) -> int:
    end = time.monotonic() + 5
    while sockets() != wanted and time.monotonic() < end:
        time.sleep(0.02)
    return sockets()


def test_as_completed(client: hodei.Client) -> None:
    jobs = client.submit_many(["sleep 1", "exit 3", "true"])
    assert [job.exit_code for job in client.as_completed(jobs)][-1] == 0
    assert sorted(job.exit_code for job in client.as_completed(jobs)) == [0, 0, 3]  # type: ignore[type-var]
    assert list(client.as_completed([])) == []
    forever = client.submit("sleep 600")
    with pytest.raises(hodei.WaitTimeout, match="1 of 4 jobs"):
        list(client.as_completed([*jobs, forever], timeout=0.3))
    forever.cancel(force=True)


def test_more_jobs_than_a_filter_takes(client: hodei.Client) -> None:
    jobs = client.submit_many([["true"]] * 2300)
    assert {job.id for job in client.as_completed(jobs)} == {job.id for job in jobs}
    assert all(job.state is hodei.JobState.SUCCEEDED for job in jobs)


def test_map_raises_at_the_first_that_fails_when_asked_to(client: hodei.Client) -> None:
    assert [job.exit_code for job in client.map(["true", "exit 4", "true"])] == [0, 4, 0]
    jobs = client.map(["true", "exit 4", "true"], check=True)
    assert next(jobs).exit_code == 0
    with pytest.raises(hodei.JobFailed) as caught:
        next(jobs)
    assert caught.value.exit_code == 4
    assert isinstance(caught.value.job, hodei.Job)


def test_a_batch_that_is_refused_in_part(client: hodei.Client) -> None:
    with pytest.raises(hodei.InvalidArgument, match="job 1 of the batch") as caught:
        client.submit_many([["true"], hodei.JobSpec(["true"], queue="Not A Queue"), ["true"]])
    assert [client.jobs.get(job_id).wait().exit_code for job_id in caught.value.accepted] == [0, 0]


def test_errors_are_short(client: hodei.Client) -> None:
    with pytest.raises(hodei.NotFound) as caught:
        client.jobs.get("job_00000000000000000000000000")
    assert len(caught.traceback) <= 3
    assert caught.value.__cause__ is None


def test_many_threads_use_one_client(client: hodei.Client) -> None:
    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda number=number: outputs.append(client.run(["echo", str(number)]).output()))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs, key=int) == [str(number) for number in range(20)]


def test_a_client_leaves_nothing(server: None) -> None:  # noqa: ARG001 - is there first
    before, threads = sockets(), threading.active_count()
    with hodei.Client() as client:
        job = client.submit("seq 1 100000; sleep 600")
        lines = job.logs(follow=True)
        assert str(next(lines)) == "1"
        del lines
        client.raw.jobs.get_job(GetJobRequest(id=job.id))
        job.cancel(force=True)
    assert settled(before) == before
    assert threading.active_count() == threads
    with pytest.raises(hodei.ConfigurationError, match="closed"):
        client.run(["true"])
    client.close()


def test_a_client_that_is_forgotten_leaves_nothing(server: None) -> None:  # noqa: ARG001
    before, threads = sockets(), threading.active_count()
    job = hodei.Client().submit("seq 1 10; sleep 600")
    lines = job.logs(follow=True)
    assert str(next(lines)) == "1"
    job.cancel(force=True)
    del job, lines
    gc.collect()
    assert settled(before) == before
    assert threading.active_count() == threads


def test_canceling_a_task_stops_the_waiting_alone(server: None) -> None:  # noqa: ARG001
    async def main() -> None:
        async with hodei.AsyncClient() as client:
            job = await client.submit("echo hello; sleep 600")
            async with aclosing(job.logs(follow=True)) as lines:
                assert str(await anext(lines)) == "hello"
            for waiting in (job.wait(), anext(aiter(job.logs(follow=True, stream="stderr")))):
                task = asyncio.ensure_future(waiting)
                await asyncio.sleep(0.3)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await job.wait()
            assert not (await job.refresh()).done
            with pytest.raises(hodei.WaitTimeout) as caught:
                await job.wait(timeout=0.2)
            assert caught.value.job is job
            await job.cancel(force=True)
            with pytest.raises(hodei.JobCanceled):
                await job.wait()

    asyncio.run(main())


def test_async_map_and_callbacks(server: None) -> None:  # noqa: ARG001
    async def main() -> None:
        async with hodei.AsyncClient() as client:
            outputs = [await job.output() async for job in client.map([["echo", str(number)] for number in range(5)])]
            assert outputs == ["0", "1", "2", "3", "4"]
            seen: list[str] = []

            async def note(line: hodei.LogLine) -> None:
                seen.append(line.text)

            await client.run("echo a; echo b", on_line=note)
            assert seen == ["a", "b"]
            assert [worker.state async for worker in client.workers.list()] == ["READY"]

    asyncio.run(main())


def test_a_blocking_client_in_a_coroutine(client: hodei.Client) -> None:
    async def main() -> str:
        return client.run(["echo", "fine"]).output()

    assert asyncio.run(main()) == "fine"


def python(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": SOURCE},
    )


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["sh", "-c", r"printf '\377\n'; echo err >&2; exit 9"], 9, b"\xff\n", b"err\n"),
        (["sh", "-c", "kill -9 $$"], 137, b"", b"SIGKILL"),
        (["no-such-program"], 127, b"", b"no-such-program"),
        (["true"], 0, b"", b""),
        ([], 125, b"", b"hodei: "),
    ],
)
def test_command_line(arguments: list[str], code: int, out: bytes, err: bytes) -> None:
    process = python("-m", "hodei", "run", "--", *arguments)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (code, out)
    assert err in stderr


@pytest.mark.usefixtures("server")
def test_ctrl_c_cancels_the_job() -> None:
    process = python("-m", "hodei", "run", "--", "sh", "-c", "trap 'echo bye; exit' TERM; echo hello; sleep 600 & wait")
    assert process.stdout is not None
    assert process.stdout.readline() == b"hello\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, b"bye\n")
    assert b"canceling job job_" in stderr


@pytest.mark.usefixtures("server")
def test_ctrl_c_ends_a_wait_at_once() -> None:
    program = "import hodei; c = hodei.Client(); j = c.submit('sleep 600'); print(j.id, flush=True); j.wait()"
    process = python("-c", program)
    assert process.stdout is not None
    job_id = process.stdout.readline().decode().strip()
    time.sleep(0.5)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in stderr
    assert time.monotonic() - begin < 3
    with hodei.Client() as client:
        client.jobs.get(job_id).cancel(force=True)


def test_a_server_that_is_known_by_a_pin(client: hodei.Client) -> None:
    own = client.config
    pin = pin_of(ssl.PEM_cert_to_DER_cert(Path(own.ca).read_text()))
    with hodei.Client(ca_pin=pin, cert=own.cert, key=own.key) as pinned:
        job = pinned.run(["true"])
        assert pinned.raw.jobs.get_job(GetJobRequest(id=job.id)).job is not None
    with hodei.Client(ca_pin="sha256:" + "0" * 64, cert=own.cert, key=own.key) as other:
        with pytest.raises(hodei.Unavailable, match=f"it shows the CA {pin}"):
            other.jobs.get("job_1")
        with pytest.raises(hodei.Unavailable, match="or the pin is old"):
            _ = other.raw


def test_inside_a_job(client: hodei.Client) -> None:
    program = """
import hodei
job = hodei.current()
print(job.job_id, job.job_name, job.namespace, job.queue, job.attempt, job.step, job.step_index)
print(job.mask("correct horse battery staple"))
print("it is correct horse battery staple")
"""
    step = hodei.Step([sys.executable, "-c", program], name="ask", env={"PYTHONPATH": SOURCE})
    job = client.run(steps=[hodei.Step("true"), step], name="curious")
    assert job.output(step="ask").splitlines() == [f"{job.id} curious default default 1 ask 1", "[]", "it is ****"]


def test_commands_may_come_from_the_client_itself(client: hodei.Client) -> None:
    first = client.submit_many([["echo", "a"], ["echo", "b"]], labels={"stage": "one"})
    second = client.map([["echo", job.output() + "!"] for job in client.as_completed(first)], labels={"stage": "two"})
    assert sorted(job.output() for job in second) == ["a!", "b!"]
    third = client.map(["echo", job.labels["stage"]] for job in client.jobs.list(labels={"stage": "two"}))
    assert [job.output() for job in third] == ["two", "two"]
    assert len(list(client.as_completed(client.jobs.list(labels={"stage": "one"})))) == 2


def test_closing_a_client_ends_what_others_wait_for(server: None) -> None:  # noqa: ARG001
    client = hodei.Client()
    job = client.submit("sleep 600")
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            job.wait()
        except hodei.HodeiError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(errors) == 1
    with hodei.Client() as other:
        other.jobs.get(job.id).cancel(force=True)


@pytest.mark.usefixtures("server")
def test_programs_end_in_peace() -> None:
    program = """
import asyncio, hodei
async def main():
    async with hodei.AsyncClient() as client:
        try:
            await client.jobs.get("job_00000000000000000000000000")
        except hodei.NotFound:
            pass
asyncio.run(main())
with hodei.Client() as client:
    client.submit(["true"])
"""
    # Several at once, so that threads of the transport are put off while the interpreter ends.
    for _ in range(5):
        running = [python("-c", program) for _ in range(6)]
        assert [(process.wait(60), process.communicate()[1]) for process in running] == [(0, b"")] * 6
