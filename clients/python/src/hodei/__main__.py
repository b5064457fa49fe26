"""`python -m hodei`: run a job where the `hodei` command is not installed."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from hodei import Client, HodeiError, JobState, __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from hodei import Job

EXIT_TIMEOUT = 124
EXIT_OWN_FAILURE = 125
EXIT_CANCELED = 130
EXIT_NOBODY_READS = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.action == "version":
        print(f"hodei {__version__} (Python client)")
        return 0
    command: list[str] = options.command
    if command[:1] == ["--"]:
        command = command[1:]
    try:
        with Client(url=options.url, context=options.context) as client:
            job = client.submit(
                command,
                name=options.name,
                queue=options.queue,
                namespace=options.namespace,
                labels=dict(options.label),
                env=dict(options.env),
                cwd=options.cwd,
                cpus=options.cpus,
                memory=options.memory,
                timeout=options.timeout,
                max_attempts=options.max_attempts,
            )
            return _exit_code(job, _follow(job))
    except HodeiError as error:
        _complain(error)
        return EXIT_OWN_FAILURE
    except KeyboardInterrupt:  # twice: the job is being stopped, and nobody waits for it
        return EXIT_CANCELED
    except BrokenPipeError:
        # Nobody reads the output any more. What is left of it in buffers must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NOBODY_READS


def _follow(job: Job) -> bool:
    """Write the output as it comes, until the job has ended; report whether that was asked for with Ctrl-C."""
    interrupted = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        # The file object may be in the middle of a write, which this handler has interrupted.
        os.write(2, f"hodei: canceling job {job.id}; Ctrl-C again leaves it\n".encode())
        _cancel(job, "interrupted")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for chunk in job.chunks(follow=True):
            out = sys.stderr.buffer if chunk.stream == "stderr" else sys.stdout.buffer
            out.write(chunk.data)
            out.flush()
        job.wait(check=False)
    except BrokenPipeError:
        _cancel(job, "nobody read its output any more")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return interrupted


def _cancel(job: Job, reason: str) -> None:
    try:
        job.cancel(reason=reason)
    except HodeiError as error:
        if error.reason != "JOB_ENDED":
            os.write(2, f"hodei: {error}\n".encode())


def _exit_code(job: Job, interrupted: bool) -> int:
    if job.state is JobState.SUCCEEDED:
        return 0
    cause = job.cause
    if cause is not None and cause.message and not interrupted:
        _complain(f"job {job.id}: {cause.message}")
    if job.state is JobState.CANCELED:
        return EXIT_CANCELED
    if job.state is JobState.TIMED_OUT:
        return EXIT_TIMEOUT
    return job.exit_code or EXIT_OWN_FAILURE


def _complain(what: object) -> None:
    print(f"hodei: {what}", file=sys.stderr, flush=True)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m hodei", description="The Python client of Hodei Jobs.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    actions.add_parser("version", help="print the version")
    run = actions.add_parser(
        "run",
        help="run a command as a job, and follow its output",
        usage="python -m hodei run [options] -- COMMAND [ARGUMENT ...]",
        epilog="Exits with the job's code, 124 when its time was up, 125 when it could not be run, and 130 when it was "
        "canceled. Ctrl-C cancels the job.",
    )
    run.add_argument("--url", help="address of the server (HODEI_URL)")
    run.add_argument("--context", help="context to use (HODEI_CONTEXT)")
    run.add_argument("--name", default="", help="name of the job")
    run.add_argument("--queue", default="", help="queue to wait in")
    run.add_argument("--namespace", default="", help="namespace of the job (HODEI_NAMESPACE)")
    run.add_argument("--label", type=_pair, action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    run.add_argument("--env", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    run.add_argument("--cwd", default="", help="folder on the worker")
    run.add_argument("--cpus", type=float, default=0, help="CPUs to reserve")
    run.add_argument("--memory", default=0, help="memory to reserve: 512Mi, 2Gi")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="how long an attempt may run")
    run.add_argument("--max-attempts", type=int, default=0, help="how often it may be started")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


if __name__ == "__main__":
    sys.exit(main())
