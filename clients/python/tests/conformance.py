"""Runs the cases that all clients share; clients/conformance/README.md says how.

The variable HODEI_CONFORMANCE names the file that says what to run, and whether this is `python` or `python-async`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
import threading
import time
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The package as it is beside this file, also where it is not installed.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import hodei

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator

Values = dict[str, Any]

# How long a step may take before its case counts as failed.
STEP_LIMIT = 120.0


class MismatchError(Exception):
    """A step did something else than the table says."""


class Blocking:
    """Uses `Client`."""

    client = hodei.Client

    def call(self, result: Any) -> Any:
        """Return what a method has returned."""
        return result

    def each(self, items: Any, take: Callable[[Any], bool]) -> None:
        """Give items to a function until it wants no more, and drop the rest."""
        for item in items:
            if take(item):
                break
        items.close()


class OnLoop:
    """Uses `AsyncClient`, on an event loop in a thread of its own."""

    client = hodei.AsyncClient

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def call(self, result: Coroutine[Any, Any, Any]) -> Any:
        """Return what a method returns in the end."""
        return asyncio.run_coroutine_threadsafe(result, self._loop).result()

    def each(self, items: AsyncGenerator[Any], take: Callable[[Any], bool]) -> None:
        """Give items to a function until it wants no more, and drop the rest."""

        async def read() -> None:
            async for item in items:
                if take(item):
                    break
            await items.aclose()

        self.call(read())


class Meanwhile:
    """Steps that run while another one does."""

    def __init__(self, case: Case, step: Values) -> None:
        self._case = case
        self._steps: list[Values] = step.get("meanwhile", [])
        self._after = step.get("after_ms")
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        if self._after is not None:
            self.begin()

    def begin(self) -> None:
        """Start them, once: something was seen, or the time has come."""
        if self._steps and self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            time.sleep((self._after or 0) / 1000)
            for step in self._steps:
                self._case.step(step)
        except Exception as error:  # noqa: BLE001 - whatever it is, the case has failed
            self._failure = error

    def end(self) -> None:
        """Wait for them."""
        if self._thread is not None:
            self._thread.join(STEP_LIMIT)
            if self._thread.is_alive():
                raise MismatchError("what runs meanwhile does not end")
        if self._failure is not None:
            raise self._failure


class Case:
    """One case of the table."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._api = driver.api
        self._named: Values = {}
        self._clients: list[Any] = []
        self._variables = driver.variables | {"unique": "u" + uuid.uuid4().hex}

    def run(self, steps: list[Values]) -> None:
        """Run steps, one after the other."""
        try:
            for number, step in enumerate(steps, 1):
                try:
                    self.step(step)
                except Exception as error:
                    raise MismatchError(f"step {number} ({step['do']}): {type(error).__name__}: {error}") from error
        finally:
            for client in self._clients:
                self._api.call(client.close())

    def step(self, step: Values) -> None:
        """Run one step, and compare what it does with what the table says."""
        step = self._filled(step)
        meanwhile = Meanwhile(self, step)
        wanted_error = step.get("error")
        try:
            result = getattr(self, "do_" + step["do"])(step, meanwhile)
        except hodei.HodeiError as error:
            if wanted_error is None:
                raise
            compare_error(error, wanted_error)
            return
        finally:
            meanwhile.end()
        if wanted_error is not None:
            raise MismatchError(f"no error, and {wanted_error} was expected")
        if "as" in step:
            self._named[step["as"]] = result
        for key, value in step.get("expect", {}).items():
            compare(key, field(result, key), value)

    def _filled(self, value: Any) -> Any:
        """Put variables and fields of results in their places, but leave those of steps that come later."""
        if isinstance(value, dict):
            return {key: each if key == "meanwhile" else self._filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        if not isinstance(value, str):
            return value
        whole = re.fullmatch(r"\$\{([^}]+)\}", value)
        if whole:
            return self._value(whole[1])
        return re.sub(r"\$\{([^}]+)\}", lambda match: str(self._value(match[1])), value)

    def _value(self, name: str) -> Any:
        if name == "index":
            return "${index}"
        head, _, tail = name.partition(".")
        if tail and head in self._named:
            return field(self._named[head], tail)
        return self._variables[name]

    def _client(self, step: Values) -> Any:
        return self._named[step["client"]] if "client" in step else self._driver.client

    def _job(self, step: Values) -> Any:
        job = self._named.get(step["job"])
        return self._api.call(self._client(step).jobs.get(step["job"])) if job is None else job

    def do_client(self, step: Values, _meanwhile: Meanwhile) -> Any:
        with environment(step.get("environment")):
            client = self._api.client(**step.get("with", {}))
        self._clients.append(client)
        return client

    def do_close(self, step: Values, _meanwhile: Meanwhile) -> None:
        self._api.call(self._client(step).close())

    def do_submit(self, step: Values, _meanwhile: Meanwhile) -> Any:
        command, options = spec(step)
        return self._api.call(self._client(step).submit(command, **options))

    def do_run(self, step: Values, _meanwhile: Meanwhile) -> Any:
        command, options = spec(step)
        return self._api.call(self._client(step).run(command, **options))

    def do_wait(self, step: Values, _meanwhile: Meanwhile) -> Any:
        timeout = step["timeout_ms"] / 1000 if "timeout_ms" in step else None
        return self._api.call(self._job(step).wait(timeout))

    def do_get(self, step: Values, _meanwhile: Meanwhile) -> Any:
        return self._api.call(self._client(step).jobs.get(step["id"]))

    def do_cancel(self, step: Values, _meanwhile: Meanwhile) -> Any:
        options = {key: step[key] for key in ("step", "reason", "force") if key in step}
        return self._api.call(self._job(step).cancel(**options))

    def do_list(self, step: Values, _meanwhile: Meanwhile) -> Any:
        options = {key: step[key] for key in ("name", "labels", "states", "page_size", "limit") if key in step}
        jobs = self._all(self._client(step).jobs.list(**options))
        created = [job.created for job in jobs]
        return {
            "count": len(jobs),
            "unique": len({job.id for job in jobs}) == len(jobs),
            "newest_first": created == sorted(created, reverse=True),
        }

    def do_map(self, step: Values, _meanwhile: Meanwhile) -> Any:
        commands = [
            [word.replace("${index}", str(index)) for word in step["command"]] for index in range(step["count"])
        ]
        jobs = self._all(self._client(step).map(commands, check=False, **options_of(step)))
        ran = [list(job.message.spec.steps[0].action.value.argv) for job in jobs]
        return {
            "count": len(jobs),
            "succeeded": sum(job.state == "SUCCEEDED" for job in jobs),
            "ordered": ran == commands,
        }

    def do_logs(self, step: Values, meanwhile: Meanwhile) -> Any:
        options = {key: step[key] for key in ("follow", "stream", "step", "attempt", "tail") if key in step}
        lines = self._all(self._job(step).logs(**options), meanwhile, step.get("take"))
        texts = [str(line) for line in lines]
        if "numbered" in step:
            numbers = [str(number) for number in range(1, step["numbered"] + 1)]
            first = next((pair for pair in zip(texts, numbers, strict=False) if pair[0] != pair[1]), None)
            return {"numbered": texts == numbers or f"{len(texts)} lines, and first {first}"}
        return {"lines": texts}

    def do_chunks(self, step: Values, meanwhile: Meanwhile) -> Any:
        options = {key: step[key] for key in ("follow", "stream") if key in step}
        chunks = self._all(self._job(step).chunks(**options), meanwhile)
        return {"base64": base64.b64encode(b"".join(chunk.data for chunk in chunks)).decode()}

    def do_watch(self, step: Values, meanwhile: Meanwhile) -> Any:
        states: list[str] = []

        def take(job: Any) -> bool:
            meanwhile.begin()
            if job.state not in states:
                states.append(str(job.state))
            return bool(job.done)

        self._api.each(self._client(step).jobs.watch(ids=[self._job(step).id]), take)
        return {"states": states}

    def do_explain(self, step: Values, _meanwhile: Meanwhile) -> Any:
        return {"text": str(self._api.call(self._job(step).explain()))}

    def do_control(self, step: Values, _meanwhile: Meanwhile) -> Any:
        if step["action"] == "restart":
            self._driver.control("POST", "restart")
            return {}
        connections = int(self._driver.control("GET", "connections"))
        wanted = step.get("expect", {}).get("connections")
        end = time.monotonic() + 5
        while wanted is not None and connections != wanted and time.monotonic() < end:
            time.sleep(0.05)  # the server sees the end of a connection a moment later
            connections = int(self._driver.control("GET", "connections"))
        return {"connections": connections}

    def _all(self, items: Any, meanwhile: Meanwhile | None = None, limit: int | None = None) -> list[Any]:
        found: list[Any] = []

        def take(item: Any) -> bool:
            if meanwhile is not None:
                meanwhile.begin()
            found.append(item)
            return len(found) == limit

        self._api.each(items, take)
        return found


class Driver:
    """Runs the table."""

    def __init__(self, settings: Values) -> None:
        self.api: Any = OnLoop() if settings["client"] == "python-async" else Blocking()
        self.variables: Values = settings["variables"]
        self._name: str = settings["client"]
        self._control: str = settings["control"]
        self._cases: list[Values] = json.loads(Path(settings["cases"]).read_text("utf-8"))["cases"]
        self.client = self.api.client()

    def control(self, method: str, action: str) -> str:
        """Ask the one who runs this for something."""
        address = f"{self._control.rstrip('/')}/{action}"
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=STEP_LIMIT) as answer:
            return str(answer.read().decode())

    def run(self) -> None:
        """Run all cases, or those whose names are arguments."""
        for case in self._cases:
            if sys.argv[1:] and case["name"] not in sys.argv[1:]:
                continue
            result: Values = {"case": case["name"], "ok": True}
            if self._name in case.get("skip", {}):
                result["skipped"] = case["skip"][self._name]
            else:
                try:
                    Case(self).run(case["steps"])
                except Exception as error:  # noqa: BLE001 - whatever it is, the case has failed
                    result |= {"ok": False, "message": str(error)}
            print(json.dumps(result), flush=True)
        self.api.call(self.client.close())


def spec(step: Values) -> tuple[Any, Values]:
    """Return the command of a step, and its options."""
    options = options_of(step)
    if "steps" in step:
        return None, options | {"steps": [hodei.Step(each["script"], name=each["name"]) for each in step["steps"]]}
    return step.get("command", step.get("script")), options


def options_of(step: Values) -> Values:
    """Return the options of a job by the names of this client."""
    options = dict(step.get("options", {}))
    for theirs, ours in (("timeout_ms", "timeout"), ("backoff_ms", "backoff")):
        if theirs in options:
            options[ours] = options.pop(theirs) / 1000
    return options


def field(result: Any, name: str) -> Any:
    """Return what a result has under a name of the table."""
    value = result[name] if isinstance(result, dict) else getattr(result, name)
    return str(value) if isinstance(value, hodei.Cause) else value


def compare(what: str, got: Any, wanted: Any) -> None:
    """Raise when something is not as it should be."""
    if isinstance(wanted, dict) and "contains" in wanted:
        if wanted["contains"] not in got:
            raise MismatchError(f"{what} is {got!r}, and {wanted['contains']!r} is not in it")
    elif what == "cause" and wanted in got:
        return
    elif got != wanted:
        raise MismatchError(f"{what} is {got!r}, and {wanted!r} was expected")


def compare_error(error: hodei.HodeiError, wanted: Values) -> None:
    """Raise when an error is another one than the table says."""
    compare("type", type(error).__name__, wanted["type"])
    if "contains" in wanted:
        compare("message", str(error), {"contains": wanted["contains"]})
    for key in ("reason", "exit_code", "signal"):
        if key in wanted:
            compare(key, getattr(error, key), wanted[key])
    if "log_tail" in wanted:
        tail = getattr(error, "log_tail", ())
        compare("log_tail", list(tail)[-len(wanted["log_tail"]) :], wanted["log_tail"])


@contextmanager
def environment(variables: Values | None) -> Iterator[None]:
    """Let a client see these variables alone."""
    if variables is None:
        yield
        return
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    Driver(json.loads(Path(os.environ["HODEI_CONFORMANCE"]).read_text("utf-8"))).run()
