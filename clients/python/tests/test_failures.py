"""Which error a failure is, and which failures are tried again."""

from __future__ import annotations

from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from protobuf.wkt import Duration
from pyqwest import ReadError, WriteError

import hodei
from hodei._failures import Failure, PinMismatch, failure_of, translate
from hodei._gen.google.rpc.error_details_pb import ErrorInfo, RetryInfo
from hodei._retry import CUT_TRIES, LONGEST, SHORTEST, Attempts, Backoff, Link

CONFIG = hodei.Config(url="https://jobs:7443", ca="ca.pem")
CERTIFIED = hodei.Config(url="https://jobs:7443", ca="ca.pem", cert="me.pem", key="key.pem")
REFUSED = ConnectionError(
    "Request failed: error sending request for url (https://jobs:7443/x): client error (Connect): "
    "tcp connect error: Connection refused (os error 111)"
)
UNTRUSTED = ConnectionError("client error (Connect): invalid peer certificate: UnknownIssuer")
WRONG_NAME = ConnectionError("client error (Connect): invalid peer certificate: NotValidForName")
EXPIRED = ConnectionError("client error (Connect): invalid peer certificate: Expired")
ALERT = ConnectionError("client error (SendRequest): received fatal alert: CertificateExpired")


def remote(code: Code, message: str = "why", *details: Any) -> ConnectError:
    return ConnectError(code, message, details)


def local(cause: BaseException, code: Code = Code.UNAVAILABLE) -> ConnectError:
    error = ConnectError(code, str(cause))
    error.__cause__ = cause
    return error


FAILURES: list[tuple[ConnectError, Failure, type[hodei.HodeiError], str]] = [
    (remote(Code.NOT_FOUND), Failure.REMOTE, hodei.NotFound, "why"),
    (remote(Code.INVALID_ARGUMENT), Failure.REMOTE, hodei.InvalidArgument, "why"),
    (remote(Code.FAILED_PRECONDITION), Failure.REMOTE, hodei.FailedPrecondition, "why"),
    (remote(Code.PERMISSION_DENIED), Failure.REMOTE, hodei.PermissionDenied, "why"),
    (remote(Code.UNAUTHENTICATED), Failure.REMOTE, hodei.Unauthenticated, "why"),
    (remote(Code.RESOURCE_EXHAUSTED), Failure.REMOTE, hodei.QuotaExceeded, "why"),
    (remote(Code.UNAVAILABLE), Failure.REMOTE, hodei.Unavailable, "why"),
    (remote(Code.DEADLINE_EXCEEDED), Failure.REMOTE, hodei.WaitTimeout, "why"),
    (remote(Code.UNIMPLEMENTED, "Not Found"), Failure.REMOTE, hodei.VersionSkew, "older version"),
    (remote(Code.INTERNAL), Failure.REMOTE, hodei.HodeiError, "why"),
    (remote(Code.ABORTED, ""), Failure.REMOTE, hodei.HodeiError, "aborted"),
    (remote(Code.UNKNOWN, "invalid content-type: 'text/html'"), Failure.PAGE, hodei.VersionSkew, "not a Hodei server"),
    (remote(Code.INTERNAL, "protocol error: unexpected EOF"), Failure.CUT, hodei.Unavailable, "closed the connection"),
    (local(REFUSED), Failure.DIAL, hodei.Unavailable, "no server answers at https://jobs:7443: tcp connect error"),
    (local(UNTRUSTED), Failure.CERTIFICATE, hodei.Unavailable, "another CA than ca.pem"),
    (local(WRONG_NAME), Failure.CERTIFICATE, hodei.Unavailable, "not for the name in https://jobs:7443"),
    (local(EXPIRED), Failure.CERTIFICATE, hodei.Unavailable, "is not valid"),
    (local(ALERT), Failure.ALERT, hodei.Unauthenticated, "may want a client certificate"),
    (local(PinMismatch("it shows no CA")), Failure.PIN, hodei.Unavailable, "it shows no CA"),
    (local(ReadError("reset")), Failure.CUT, hodei.Unavailable, "closed the connection"),
    (local(WriteError("channel closed")), Failure.CUT, hodei.Unavailable, "hodei login"),
    (local(TimeoutError("slow"), Code.DEADLINE_EXCEEDED), Failure.SILENT, hodei.Unavailable, "does not answer"),
    (local(UnicodeEncodeError("utf-8", "\udc80", 0, 1, "no")), Failure.LOCAL, hodei.InvalidArgument, "cannot be sent"),
]


@pytest.mark.parametrize(("error", "failure", "kind", "text"), FAILURES)
def test_failures(error: ConnectError, failure: Failure, kind: type[hodei.HodeiError], text: str) -> None:
    assert failure_of(error) is failure
    translated = translate(error, CONFIG)
    assert type(translated) is kind
    assert text in str(translated)
    assert "Request failed" not in str(translated)


def test_a_refused_certificate_is_named() -> None:
    assert "me.pem" in str(translate(local(WriteError("closed")), CERTIFIED))
    assert "me.pem" in str(translate(local(ALERT), CERTIFIED))


def test_details() -> None:
    details = [
        ErrorInfo(reason="UNAVAILABLE", domain="hodei"),
        RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
    ]
    error = translate(remote(Code.UNAVAILABLE, "the server stops", *details), CONFIG)
    assert (error.code, error.reason, error.retry_after) == ("unavailable", "UNAVAILABLE", 1.5)


def test_version_skew_by_its_reason() -> None:
    error = translate(remote(Code.FAILED_PRECONDITION, "old", ErrorInfo(reason="VERSION_SKEW")), CONFIG)
    assert isinstance(error, hodei.VersionSkew)


def tries(error: ConnectError, *, reached: bool, most: int = 20) -> int:
    link = Link()
    link.reached = reached
    attempts = Attempts(link, lambda error: translate(error, CONFIG))
    for number in range(1, most):
        try:
            assert SHORTEST / 2 <= attempts.failed(error) <= LONGEST
        except hodei.HodeiError:
            return number
    return most


@pytest.mark.parametrize(
    ("error", "never_reached", "reached"),
    [
        (local(REFUSED), 1, 20),
        (local(TimeoutError("slow")), 1, 20),
        (local(ReadError("reset")), CUT_TRIES + 1, 20),
        (local(UNTRUSTED), 1, 1),
        (local(PinMismatch("other")), 1, 1),
        (local(ValueError("cannot be encoded")), 1, 1),
        (remote(Code.NOT_FOUND), 1, 1),
        (remote(Code.INTERNAL), 1, 1),
        (remote(Code.UNAUTHENTICATED), 1, 1),
        (remote(Code.UNAVAILABLE), 20, 20),
    ],
)
def test_tries(error: ConnectError, never_reached: int, reached: int) -> None:
    assert tries(error, reached=False) == never_reached
    assert tries(error, reached=True) == reached


def test_a_stream_whose_token_runs_out_is_opened_again_once() -> None:
    link = Link()
    link.reached = link.renewable = True
    attempts = Attempts(link, lambda error: translate(error, CONFIG))
    attempts.received()
    attempts.failed(remote(Code.UNAUTHENTICATED))
    with pytest.raises(hodei.Unauthenticated):
        attempts.failed(remote(Code.UNAUTHENTICATED))


def test_waits_grow() -> None:
    backoff = Backoff()
    wanted = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2]
    for longest in wanted:
        assert longest / 2 <= backoff.next() <= longest
    backoff.reset()
    assert backoff.next() <= SHORTEST
