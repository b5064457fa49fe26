"""What went wrong with a call, and the error that says so to the caller."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from connectrpc.code import Code
from pyqwest import ReadError, RemoteProtocolError, WriteError

from hodei._gen.google.rpc.error_details_pb import ErrorInfo, RetryInfo
from hodei.errors import (
    FailedPrecondition,
    HodeiError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
    VersionSkew,
    WaitTimeout,
)

if TYPE_CHECKING:
    from connectrpc.errors import ConnectError

    from hodei._config import Config


class Failure(Enum):
    """Who failed, and how."""

    REMOTE = auto()
    """The server, or something in between that speaks for it, has answered with an error."""
    PAGE = auto()
    """The answer is not one of this API."""
    PIN = auto()
    """The server is another one than the pin names."""
    CERTIFICATE = auto()
    """The server's certificate is not one to trust."""
    ALERT = auto()
    """The other end has ended TLS with a reason."""
    DIAL = auto()
    """There was no connection."""
    CUT = auto()
    """The connection was closed in the middle."""
    SILENT = auto()
    """Nothing came for too long; a server that lives sends something every 15 seconds."""
    LOCAL = auto()
    """The request could not be sent at all."""


class PinMismatch(Exception):
    """A server is not the one that the pin names."""


def failure_of(error: ConnectError) -> Failure:
    """Tell failures apart. What was caused by an exception did not come from the server."""
    cause = error.__cause__
    if cause is None:
        if error.message.startswith("invalid content-type"):
            return Failure.PAGE
        if error.message.startswith(("protocol error:", "corrupt response:")):
            return Failure.CUT
        return Failure.REMOTE
    if isinstance(cause, PinMismatch):
        return Failure.PIN
    # The transport tells these apart by words only.
    if "invalid peer certificate" in str(cause):
        return Failure.CERTIFICATE
    if "fatal alert" in str(cause):
        return Failure.ALERT
    if isinstance(cause, ConnectionError):
        return Failure.DIAL
    if isinstance(cause, TimeoutError):
        return Failure.SILENT
    if isinstance(cause, (ReadError, WriteError, RemoteProtocolError)):
        return Failure.CUT
    return Failure.LOCAL


_TYPES: dict[str, type[HodeiError]] = {
    kind.default_code: kind
    for kind in (
        NotFound,
        InvalidArgument,
        FailedPrecondition,
        PermissionDenied,
        Unauthenticated,
        QuotaExceeded,
        Unavailable,
        VersionSkew,
        WaitTimeout,
    )
}


def error_of(code: str, message: str, reason: str = "", retry_after: float | None = None) -> HodeiError:
    """Return the error of a code and a reason of the server."""
    kind = VersionSkew if reason == "VERSION_SKEW" else _TYPES.get(code, HodeiError)
    if kind is WaitTimeout:
        return WaitTimeout(message, reason=reason)
    return kind(message, code=code, reason=reason, retry_after=retry_after)


def translate(error: ConnectError, config: Config) -> HodeiError:
    """Return the error that says what the server, or the way to it, answered."""
    if isinstance(error.__cause__, HodeiError):
        return error.__cause__
    failure = failure_of(error)
    if failure is Failure.REMOTE:
        return _remote(error, config)
    message = _explain(error, failure, config)
    if failure is Failure.PAGE:
        return VersionSkew(message)
    if failure is Failure.LOCAL:
        return InvalidArgument(message)
    if failure is Failure.ALERT and "ertificate" in str(error.__cause__):
        return Unauthenticated(message)
    return Unavailable(message)


def _remote(error: ConnectError, config: Config) -> HodeiError:
    reason, retry_after = "", None
    for detail in error.details:
        if detail.type_name == "google.rpc.ErrorInfo" and (info := detail.value(ErrorInfo)):
            reason = info.reason
        elif detail.type_name == "google.rpc.RetryInfo" and (retry := detail.value(RetryInfo)) and retry.retry_delay:
            retry_after = retry.retry_delay.to_seconds()
    message = error.message or f"the call to {config.url} failed with the code {error.code.value}"
    if error.code == Code.UNIMPLEMENTED:
        message = (
            f"{config.url} does not know this call ({message}): the server is of an older version than this client, "
            "or the address is that of something else; update the server, or use a client of its version"
        )
    return error_of(error.code.value, message, reason, retry_after)


_HOW_TO_CERTIFY = "log in with `hodei login`, or set token (HODEI_TOKEN), or cert and key (HODEI_CERT and HODEI_KEY)"


def _explain(error: ConnectError, failure: Failure, config: Config) -> str:
    """Say why the server was not reached, and what to do."""
    url, why = config.url, _words(error)
    match failure:
        case Failure.PIN:
            return (
                f"the server at {url} is another one than {config.ca_pin} names: {why}; it is the wrong server, "
                "somebody is in between, or the pin is old"
            )
        case Failure.CERTIFICATE if "UnknownIssuer" in why or "BadSignature" in why:
            known = config.ca or config.ca_pin or "those that this machine trusts"
            return (
                f"the server at {url} has a certificate of another CA than {known}; set ca (HODEI_CA) to ca.pem of that "
                "server, or ca_pin (HODEI_CA_PIN)"
            )
        case Failure.CERTIFICATE if "NotValidForName" in why:
            return f"the server's certificate is not for the name in {url}: {why}; start it with --host for that name"
        case Failure.CERTIFICATE:
            return f"the certificate of the server at {url} is not valid: {why}"
        case Failure.ALERT if not config.cert:
            return f"the server at {url} refused the connection: {why}; it may want a client certificate ({_HOW_TO_CERTIFY})"
        case Failure.ALERT if config.login:
            return (
                f"the server at {url} refused the certificate of the login {config.login}: {why}; "
                "log in again with `hodei login`"
            )
        case Failure.ALERT:
            return (
                f"the server at {url} refused the client certificate {config.cert}: {why}; "
                "it may have expired or belong to another server"
            )
        case Failure.DIAL:
            return f"no server answers at {url}: {why}; is it running? `hodei dev` starts one"
        case Failure.CUT if config.cert:
            return (
                f"the server at {url} closed the connection: it may have refused the client certificate {config.cert}, "
                f"or something in between did: {why}"
            )
        case Failure.CUT:
            return (
                f"the server at {url} closed the connection, or something in between did: {why}; "
                f"it may want a client certificate ({_HOW_TO_CERTIFY})"
            )
        case Failure.SILENT:
            return f"the server at {url} has taken the connection and does not answer"
        case Failure.PAGE:
            return (
                f"what answers at {url} is not a Hodei server ({why}); check the address, "
                "and whether something in between answers for the server"
            )
        case Failure.LOCAL:
            return f"the request cannot be sent: {why}"
    return f"the call to {url} failed: {why}"


def _words(error: ConnectError) -> str:
    """Return what the transport says without what it says always."""
    text = str(error.__cause__ or error.message)
    head, marker, tail = text.partition("client error (")
    if head.startswith("Request failed: ") and marker:
        return tail.partition("): ")[2] or tail
    return text
