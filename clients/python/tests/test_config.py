"""What holds when several places say how to reach a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import hodei

if TYPE_CHECKING:
    from pathlib import Path

CONTEXTS = """
current = "dev"
[contexts.dev]
url = "https://dev:7443"
ca = "dev.pem"
cert = "me.pem"
key = "me-key.pem"
namespace = "team"
login = "lgn_1"
renewable_until = "2030-01-01T00:00:00Z"
[contexts.other]
url = "https://other:7443"
ca_pin = "sha256:00"
token_file = "token"
"""

CASES: list[tuple[str, dict[str, str], dict[str, str], dict[str, str]]] = [
    ("the current context", {}, {}, {"url": "https://dev:7443", "context": "dev", "cert": "me.pem", "login": "lgn_1"}),
    ("a context by a variable", {"HODEI_CONTEXT": "other"}, {}, {"url": "https://other:7443", "context": "other"}),
    ("a context by the call", {"HODEI_CONTEXT": "none"}, {"context": "other"}, {"url": "https://other:7443"}),
    (
        "an address by a variable",
        {"HODEI_URL": "https://x:1"},
        {},
        {"url": "https://x:1", "context": "", "ca": "dev.pem"},
    ),
    ("the same address keeps the context", {"HODEI_URL": "https://dev:7443"}, {}, {"context": "dev"}),
    ("the call wins", {"HODEI_URL": "https://x:1"}, {"url": "https://y:2/"}, {"url": "https://y:2"}),
    (
        "an empty variable says nothing",
        {"HODEI_URL": "", "HODEI_TOKEN": ""},
        {},
        {"url": "https://dev:7443", "token": ""},
    ),
    ("a token replaces a certificate", {"HODEI_TOKEN": "t"}, {}, {"token": "t", "cert": "", "key": "", "login": ""}),
    (
        "a certificate replaces a token",
        {"HODEI_TOKEN": "t"},
        {"cert": "c", "key": "k"},
        {"token": "", "cert": "c", "key": "k"},
    ),
    ("a nearer token replaces a file", {"HODEI_TOKEN_FILE": "f"}, {"token": "t"}, {"token": "t", "token_file": ""}),
    ("a key alone keeps the certificate", {"HODEI_KEY": "k"}, {}, {"cert": "me.pem", "key": "k", "login": ""}),
    ("a pin replaces a CA", {"HODEI_CA_PIN": "sha256:11"}, {}, {"ca": "", "ca_pin": "sha256:11"}),
    ("a CA replaces a pin", {"HODEI_CONTEXT": "other", "HODEI_CA": "ca"}, {}, {"ca": "ca", "ca_pin": ""}),
    ("a namespace stands by itself", {"HODEI_NAMESPACE": "n"}, {}, {"namespace": "n", "cert": "me.pem"}),
]


@pytest.mark.parametrize(
    ("environment", "call", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_resolve(environment: dict[str, str], call: dict[str, str], wanted: dict[str, str], tmp_path: Path) -> None:
    config = resolve(tmp_path, CONTEXTS, environment, **call)
    assert {name: getattr(config, name) for name in wanted} == wanted


REFUSED: list[tuple[str, dict[str, str], dict[str, str], str]] = [
    ("", {}, {}, "set HODEI_URL"),
    (CONTEXTS, {}, {"context": "no"}, 'there is no context "no"'),
    (CONTEXTS, {}, {"url": "http://x"}, '"http://x" is not the address'),
    (CONTEXTS, {}, {"url": "https://x:port"}, "is not the address"),
    ("", {"HODEI_URL": "https://x", "HODEI_CERT": "c"}, {}, "HODEI_KEY"),
    ("current = ", {}, {}, "is not valid TOML"),
    ("[contexts.a]\nurll = 'x'", {}, {}, "contexts.a.urll"),
    ("[contexts.a]\ntoken = 'secret'", {}, {}, "contexts.a.token"),
    ("[contexts.a]\nurl = 1", {}, {}, "contexts.a.url"),
    ("contexts = 3", {}, {}, "contexts"),
]


@pytest.mark.parametrize(("text", "environment", "call", "message"), REFUSED)
def test_refused(text: str, environment: dict[str, str], call: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(hodei.ConfigurationError) as caught:
        resolve(tmp_path, text, environment, **call)
    assert message in str(caught.value)


def test_no_token_in_messages() -> None:
    config = hodei.Config(url="https://x", token="hodei_secret")
    assert "secret" not in repr(config)


def resolve(folder: Path, text: str, environment: dict[str, str], **call: Any) -> hodei.Config:
    (folder / "hodei").mkdir()
    (folder / "hodei" / "config.toml").write_text(text)
    return hodei.Config.resolve(environment=environment | {"XDG_CONFIG_HOME": str(folder)}, **call)
