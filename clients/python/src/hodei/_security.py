"""How both sides of a connection are known: CA, pin and client certificate."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hodei._failures import PinMismatch
from hodei.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hodei._config import Config

CONNECT_TIMEOUT = 30.0

_PIN = re.compile(r"sha256:[0-9a-f]{64}")


class Security:
    """What the TLS of a client needs, from the files as they were when the client was made."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._ca: bytes | None = None
        self.cert: bytes | None = None
        self.key: bytes | None = None
        if config.ca_pin:
            if not _PIN.fullmatch(config.ca_pin):
                raise ConfigurationError(
                    f'the CA pin "{config.ca_pin}" is not sha256: and 64 hexadecimal digits; '
                    "`hodei admin authority show` prints the right one"
                )
        elif config.ca:
            self._ca = read(config.ca, "the server's CA")
            if b"-----BEGIN CERTIFICATE-----" not in self._ca:
                raise ConfigurationError(f"{config.ca} holds no PEM certificate")
        if config.cert:
            # A file with both is read once: it may be replaced at any time.
            self.cert = read(config.cert, "the client certificate")
            self.key = self.cert if config.key == config.cert else read(config.key, "the key of the client certificate")

    @property
    def pinned(self) -> bool:
        """Whether `ca` has to ask the server first."""
        return bool(self._config.ca_pin)

    def ca(self) -> bytes | None:
        """Return the certificates by which the server is known, in PEM; None for those that the machine trusts.

        With a pin this waits for the server: it shows its CA when it is asked for the first time.
        """
        if not self.pinned:
            return self._ca
        with self._lock:
            if self._ca is None:
                self._ca = pinned_ca(shown_chain(self._config.url), self._config.ca_pin)
            return self._ca

    def options(self) -> dict[str, Any]:
        """Return the arguments of a transport."""
        ca = self.ca()
        return {
            "tls_ca_cert": ca,
            "tls_include_system_certs": ca is None,
            "tls_cert": self.cert,
            "tls_key": self.key,
        }


def read(path: str, what: str) -> bytes:
    """Read a file that the configuration names."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"reading {what}: {error}") from error


def shown_chain(url: str) -> list[bytes]:
    """Return the certificates that a server shows, in DER, its own first. Nothing is verified, and nothing is sent."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), CONNECT_TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            return _unverified_chain(connection)
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _unverified_chain(connection: ssl.SSLSocket) -> list[bytes]:
    if sys.version_info >= (3, 13):
        return list(connection.get_unverified_chain())
    # Until 3.13 only the object inside has this method, and its certificates are not bytes yet.
    inside: Any = connection._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in inside.get_unverified_chain()]


def pinned_ca(chain: Sequence[bytes], pin: str) -> bytes:
    """Return the CA of a chain that has the pinned key, in PEM."""
    shown = [(pin_of(certificate), certificate) for certificate in chain[1:]]
    for each, certificate in shown:
        if each == pin:
            return ssl.DER_cert_to_PEM_cert(certificate).encode()
    if not shown:
        raise PinMismatch("it shows no CA")
    raise PinMismatch("it shows the CA " + " and ".join(each for each, _ in shown))


def pin_of(certificate: bytes) -> str:
    """Return what names the key of a certificate in DER: the hash of its SubjectPublicKeyInfo."""
    return "sha256:" + hashlib.sha256(public_key_info(certificate)).hexdigest()


def public_key_info(certificate: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate, with its header.

    Certificate ::= SEQUENCE { TBSCertificate ::= SEQUENCE { version [0] OPTIONAL, serialNumber, signature, issuer,
    validity, subject, subjectPublicKeyInfo, ... }, ... }
    """
    _, body, _ = _element(certificate, 0)
    _, at, _ = _element(certificate, body)
    tag, _, end = _element(certificate, at)
    if tag == 0xA0:
        at = end
    for _ in range(5):
        at = _element(certificate, at)[2]
    return certificate[at : _element(certificate, at)[2]]


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the element at a position, and where its content begins and ends."""
    try:
        tag, length = der[at], der[at + 1]
        begin = at + 2
        if length & 0x80:
            begin += length & 0x7F
            length = int.from_bytes(der[at + 2 : begin], "big")
    except IndexError:
        raise ValueError("the certificate is not valid DER") from None
    if begin + length > len(der):
        raise ValueError("the certificate is not valid DER")
    return tag, begin, begin + length
