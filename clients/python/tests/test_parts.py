"""Tokens, pins, ids, filters, the job that a process belongs to, and the package itself."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from protobuf.wkt import Timestamp

import hodei
from hodei._failures import PinMismatch
from hodei._filter import Watch, job_filter
from hodei._gen.hodei.v1.auth_service_pb import ExchangeTokenRequest, ExchangeTokenResponse
from hodei._gen.hodei.v1.job_service_pb import WatchJobsResponse
from hodei._ids import request_id
from hodei._security import Security, pin_of, pinned_ca
from hodei._token import AccessToken, Lifetime, clean

if TYPE_CHECKING:
    from collections.abc import Iterator

# A certificate of nobody, and the hash of its key as `openssl x509 -pubkey | openssl pkey -pubin -outform der` gives it.
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUXKEDmw0ANADwdB3FM6GfDkTBlPwwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyNzAzMzY1OVoYDzIxMjYxMTAzMDMz
NjU5WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARzA9xyO8QXT2zn/nmnPJkWQ5lnF9+vE88/P7Hi7UTxj8M/MokT0ZG/3VlHNJPv
WWhatVwiyswDVdYbwOfPqiWRo1MwUTAdBgNVHQ4EFgQUd69TQ1+o3h88sE56ZsuJ
wBuBqngwHwYDVR0jBBgwFoAUd69TQ1+o3h88sE56ZsuJwBuBqngwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEA6xhzrA5tQnH3VQu1dIfU+0JroIJb
yMOoVh4bxv5Rcv0CIDou+1mLuCl2XUI+xa5KKDnnIv3/tsvZWEq2tpssiRgU
-----END CERTIFICATE-----
"""
PIN = "sha256:37d74491df1e018e0c603284ab08fdd5bf7530edbadcbc4db7df6dada2b9ae56"


def test_pin() -> None:
    der = ssl.PEM_cert_to_DER_cert(CERTIFICATE)
    assert pin_of(der) == PIN
    assert pinned_ca([b"its own", der], PIN).decode().split() == CERTIFICATE.split()
    with pytest.raises(PinMismatch, match="it shows no CA"):
        pinned_ca([der], PIN)
    with pytest.raises(PinMismatch, match=f"it shows the CA {PIN}"):
        pinned_ca([der, der], "sha256:" + "0" * 64)


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_a_damaged_certificate_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="not valid DER"):
        pin_of(ssl.PEM_cert_to_DER_cert(CERTIFICATE)[:length])


@pytest.mark.parametrize("pin", ["sha256:00", "sha1:" + "0" * 64, "0" * 64, "sha256:" + "A" * 64])
def test_a_pin_that_is_none(pin: str) -> None:
    with pytest.raises(hodei.ConfigurationError, match="64 hexadecimal digits"):
        Security(hodei.Config(url="https://x", ca_pin=pin))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(hodei.ConfigurationError, match=r"text\.pem holds no PEM"):
        Security(hodei.Config(url="https://x", ca=str(text)))
    with pytest.raises(hodei.ConfigurationError, match=r"none\.pem"):
        Security(hodei.Config(url="https://x", ca=str(tmp_path / "none.pem")))
    with pytest.raises(hodei.ConfigurationError, match=r"text\.pem"):
        hodei.Client(url="https://x", cert=str(text), key=str(text))
    text.write_text(CERTIFICATE)
    with pytest.raises(hodei.ConfigurationError, match=r"client certificate .*text\.pem with the key"):
        hodei.Client(url="https://x", cert=str(text), key=str(text))


def test_a_token_is_cleaned() -> None:
    assert clean(" hodei_x\n", "here") == "hodei_x"
    for text, why in (("", "no token"), ("a b", "something else"), ("é", "something else"), ("x" * 20000, "too much")):
        with pytest.raises(hodei.ConfigurationError, match=why) as caught:
            clean(text, "the file")
        assert not text or text not in str(caught.value)


def test_lifetime() -> None:
    life = Lifetime()
    life.begin(100, 900)
    assert (life.renew_at, life.expires) == (700, 1000)
    life.postpone(700)
    assert (life.renew_at, life.expires) == (710, 1000)
    life.end()
    assert life.expires < 0
    life.begin(100, -5)  # the clocks differ
    assert (life.renew_at, life.expires) == (140, 160)


class Exchange:
    """Plays the server's part."""

    def __init__(self, life: int = 900) -> None:
        self.calls = 0
        self.life = life
        self.failure: Exception | None = None

    async def __call__(self, request: ExchangeTokenRequest) -> ExchangeTokenResponse:
        assert request.proof is not None
        assert request.proof.value == "hodei_secret"
        self.calls += 1
        await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        expires = Timestamp.now().to_seconds() + self.life
        return ExchangeTokenResponse(access_token=f"eyJ{self.calls}", expire_time=Timestamp.from_seconds(expires))


def test_one_exchange_serves_all() -> None:
    async def main() -> None:
        exchange = Exchange()
        token = AccessToken(hodei.Config(token="hodei_secret"), exchange)
        assert set(await asyncio.gather(*(token.get() for _ in range(50)))) == {"eyJ1"}
        assert exchange.calls == 1
        assert token.discard("eyJ0")  # an older one: the present one stays
        assert await token.get() == "eyJ1"
        assert token.discard("eyJ1")
        assert await token.get() == "eyJ2"

    asyncio.run(main())


def test_who_stops_waiting_does_not_stop_the_exchange() -> None:
    async def main() -> None:
        exchange = Exchange()
        token = AccessToken(hodei.Config(token="hodei_secret"), exchange)
        impatient = asyncio.create_task(token.get())
        patient = asyncio.create_task(token.get())
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == "eyJ1"
        assert exchange.calls == 1

    asyncio.run(main())


def test_a_failed_exchange_is_for_those_who_wait() -> None:
    async def main() -> None:
        exchange = Exchange()
        exchange.failure = ConnectError(Code.UNAUTHENTICATED, "revoked")
        token = AccessToken(hodei.Config(token="hodei_secret"), exchange)
        results = await asyncio.gather(token.get(), token.get(), return_exceptions=True)
        assert [str(result) for result in results] == ["revoked", "revoked"]
        exchange.failure = None
        assert await token.get() == "eyJ2"

    asyncio.run(main())


def test_a_token_is_renewed_before_it_ends() -> None:
    async def main() -> None:
        now = 1000.0
        token = AccessToken(hodei.Config(token="hodei_secret"), Exchange(), lambda: now)
        assert await token.get() == "eyJ1"
        now += 650
        assert await token.get() == "eyJ1"  # the fresh one is made behind
        await asyncio.sleep(0.05)
        assert await token.get() == "eyJ2"

    asyncio.run(main())


def test_an_access_token_is_used_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        fixed = AccessToken(hodei.Config(token="eyJx"), Exchange())
        assert await fixed.get() == "eyJx"
        assert not fixed.discard("eyJx")
        file = tmp_path / "token"
        file.write_text("eyJy\n")
        read = AccessToken(hodei.Config(token_file=str(file)), Exchange())
        assert await read.get() == "eyJy"
        assert read.discard("eyJy")
        file.write_text("eyJz\n")
        assert await read.get() == "eyJz"

    asyncio.run(main())


def test_request_ids() -> None:
    ids = [request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch("[0-7][0-9a-hjkmnp-tv-z]{25}", each) for each in ids)


def test_filters() -> None:
    message = job_filter({"states": ["failed", hodei.JobState.LOST], "labels": {"a": "b"}, "name": "n"}, "team")
    assert [state.name for state in message.states] == ["FAILED", "LOST"]
    assert (message.namespace, message.name) == ("team", "n")
    assert job_filter({"namespace": "*"}, "team").namespace == "*"
    with pytest.raises(hodei.InvalidArgument, match="no state"):
        job_filter({"states": ["broken"]})


def test_a_watch_goes_on_or_starts_over() -> None:
    watch = Watch(job_filter({}))
    too_old = ConnectError(Code.OUT_OF_RANGE, "too long ago")
    assert not watch.starts_over(too_old)
    watch.take(WatchJobsResponse(resume_token="7"))
    assert watch.request.resume_token == "7"
    assert not watch.starts_over(ConnectError(Code.UNAVAILABLE, "stops"))
    assert watch.starts_over(too_old)
    assert watch.request.resume_token == ""


JOB = {
    "HODEI_JOB_ID": "job_1",
    "HODEI_JOB_NAME": "nightly",
    "HODEI_NAMESPACE": "team",
    "HODEI_QUEUE": "default",
    "HODEI_ATTEMPT": "2",
    "HODEI_STEP": "build",
    "HODEI_STEP_INDEX": "1",
}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[dict[str, str], list[Any], list[Any]]]:
    """Play the agent: the variables of a job, what is answered next, and what was asked."""
    path, answers, asked = tmp_path / "agent.sock", [], []  # type: ignore[var-annotated]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while answers:
                connection, _ = listener.accept()
                with connection, connection.makefile("rwb") as file:
                    asked.append(json.loads(file.readline()))
                    file.write(answers.pop(0))

        thread = threading.Thread(target=serve, daemon=True)
        answers.append(b"{}\n")
        thread.start()
        yield JOB | {"HODEI_AGENT_SOCKET": str(path)}, answers, asked


def test_current(agent: tuple[dict[str, str], list[Any], list[Any]]) -> None:
    variables, answers, asked = agent
    job = hodei.current(variables)
    assert (job.job_id, job.job_name, job.namespace, job.queue) == ("job_1", "nightly", "team", "default")
    assert (job.attempt, job.step, job.step_index) == (2, "build", 1)
    answers += [b'{"warnings": ["too short"]}\n', b'{"error": "not here"}\n', b"nonsense\n"]
    job.progress(0.4, "halfway there")
    assert job.mask("secret", "password") == ["too short"]
    with pytest.raises(hodei.FailedPrecondition, match="not here"):
        job.progress(1)
    with pytest.raises(hodei.Unavailable, match="does not answer"):
        job.mask(b"\xff")
    assert asked == [
        {"progress": {"fraction": 0.4, "message": "halfway there"}},
        {"mask": {"name": "password", "value": base64.b64encode(b"secret").decode()}},
        {"progress": {"fraction": 1, "message": ""}},
        {"mask": {"name": "", "value": "/w=="}},
    ]


def test_current_outside_of_a_job() -> None:
    with pytest.raises(hodei.ConfigurationError, match="HODEI_JOB_ID"):
        hodei.current({})
    with pytest.raises(hodei.ConfigurationError, match="HODEI_ATTEMPT"):
        hodei.current(JOB | {"HODEI_ATTEMPT": "x"})
    job = hodei.current(JOB)
    with pytest.raises(hodei.ConfigurationError, match="HODEI_AGENT_SOCKET"):
        job.mask("x")
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(hodei.InvalidArgument, match="from 0 to 1"):
            job.progress(fraction)


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert hodei.__version__ == project["project"]["version"]


def test_importing_loads_neither_the_transport_nor_the_messages() -> None:
    program = (
        "import hodei, sys; print([m for m in ('pyqwest', 'connectrpc', 'protobuf', 'asyncio') if m in sys.modules])"
    )
    source = str(Path(hodei.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": source}
    )
    assert done.stdout == "[]\n"


def test_names() -> None:
    assert set(hodei.__all__) <= set(dir(hodei))
    for name in hodei.__all__:
        assert getattr(hodei, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        hodei.nothing  # type: ignore[attr-defined]  # noqa: B018
