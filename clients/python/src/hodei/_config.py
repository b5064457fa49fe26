"""How to reach a server, and as whom: arguments, variables and the file of contexts."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hodei.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_SERVER = (
    "no server is configured; start one with `hodei dev`, log in to one with `hodei login`, "
    "or set HODEI_URL and HODEI_CA, and HODEI_TOKEN, or HODEI_CERT and HODEI_KEY"
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How to reach a server, and as whom.

    `ca`, `cert` and `key` are paths of PEM files; `cert` and `key` may be one file.
    """

    url: str = ""
    """The address of the server: `https://host:7443`."""
    ca: str = ""
    """The CA by which the server is known. Those that the machine trusts when neither this nor `ca_pin` is set."""
    ca_pin: str = ""
    """`sha256:` and the hash of a public key: the server is known by a CA with this key."""
    cert: str = ""
    """The client certificate."""
    key: str = ""
    """Its key."""
    token: str = field(default="", repr=False)
    """The secret of an API token, or an access token, which is used as it is."""
    token_file: str = ""
    """A file with what `token` would be. It is read again whenever a fresh access token is needed."""
    namespace: str = ""
    """The namespace of jobs and filters that name none."""
    login: str = ""
    """The login that the certificate belongs to. The `hodei` command renews it; this package does not."""
    renewable_until: str = ""
    """Until when the login can be renewed."""
    context: str = ""
    """The name of the context that the values came from; empty for none."""

    @classmethod
    def resolve(cls, *, environment: Mapping[str, str] | None = None, **override: str | None) -> Config:
        """Return what holds here: the arguments, then variables, then a context of the file of contexts.

        How the server is known (`ca` or `ca_pin`) is said by one place, and so is who calls (`token` or `token_file`,
        or `cert` and `key`): a nearer one replaces all that a farther one says.

        >>> hodei.Config.resolve(url="https://jobs.example.com:7443", token="hodei_secret").url
        'https://jobs.example.com:7443'
        """
        variables = os.environ if environment is None else environment
        call = cls(**{name: value for name, value in override.items() if value})
        path = config_path(variables)
        current, contexts = load_contexts(path)
        name = call.context or variables.get("HODEI_CONTEXT", "") or current
        if name and name not in contexts:
            raise ConfigurationError(
                f'there is no context "{name}" in {path}; `hodei context list` shows those that are there'
            )
        base = dataclasses.replace(contexts.get(name, cls()), context=name)
        url = call.url or variables.get("HODEI_URL", "")
        if url and url != base.url:
            base = dataclasses.replace(base, url=url, context="")
        base = base._identified(_from_variables(variables))._identified(call)
        if not base.url:
            raise ConfigurationError(NO_SERVER)
        return base._checked()

    def _identified(self, nearer: Config) -> Config:
        """Take over what a nearer place says of who is who, and of the namespace."""
        changes: dict[str, str] = {}
        if nearer.ca or nearer.ca_pin:
            changes |= {"ca": nearer.ca, "ca_pin": nearer.ca_pin}
        by_token = bool(nearer.token or nearer.token_file)
        by_certificate = bool(nearer.cert or nearer.key)
        if by_token or by_certificate:
            changes |= {"login": "", "renewable_until": "", "token": nearer.token, "token_file": nearer.token_file}
        if by_certificate:
            changes |= {"cert": nearer.cert or self.cert, "key": nearer.key or self.key}
        elif by_token:
            changes |= {"cert": "", "key": ""}
        if nearer.namespace:
            changes["namespace"] = nearer.namespace
        return dataclasses.replace(self, **changes)

    def _checked(self) -> Config:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise ConfigurationError(f'"{self.url}" is not the address of a server; it looks like https://host:7443')
        if bool(self.cert) != bool(self.key):
            missing = "key" if self.cert else "cert"
            raise ConfigurationError(
                f"a client certificate needs its key, and {missing} is not set; set {missing} or HODEI_{missing.upper()}"
            )
        return dataclasses.replace(self, url=self.url.rstrip("/"))


def _from_variables(variables: Mapping[str, str]) -> Config:
    names = ("ca", "ca_pin", "cert", "key", "token", "token_file", "namespace")
    return Config(**{name: variables.get("HODEI_" + name.upper(), "") for name in names})


def config_path(variables: Mapping[str, str]) -> Path:
    """Return where the file of contexts lies, whether it is there or not."""
    folder = variables.get("XDG_CONFIG_HOME", "")
    if folder:
        return Path(folder) / "hodei" / "config.toml"
    home = variables.get("HOME", "")
    return (Path(home) if home else Path.home()) / ".config" / "hodei" / "config.toml"


_IN_FILE = frozenset(f.name for f in dataclasses.fields(Config)) - {"token", "context"}


def load_contexts(path: Path) -> tuple[str, dict[str, Config]]:
    """Read the file of contexts: the name of the current one, and all of them. A file that is not there is empty."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return "", {}
    except OSError as error:
        raise ConfigurationError(f"reading the contexts: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    return _contexts(path, document)


def _contexts(path: Path, document: dict[str, Any]) -> tuple[str, dict[str, Config]]:
    for key in document.keys() - {"current", "contexts"}:
        raise ConfigurationError(f"{path} has a key that is not known: {key}")
    current, tables = document.get("current", ""), document.get("contexts", {})
    if not isinstance(current, str) or not isinstance(tables, dict):
        raise ConfigurationError(f"{path}: current must be a text, and contexts a table")
    contexts: dict[str, Config] = {}
    for name, values in tables.items():
        if not isinstance(values, dict):
            raise ConfigurationError(f"{path}: contexts.{name} must be a table")
        for key, value in values.items():
            if key not in _IN_FILE:
                raise ConfigurationError(f"{path} has a key that is not known: contexts.{name}.{key}")
            if not isinstance(value, str):
                raise ConfigurationError(f"{path}: contexts.{name}.{key} must be a text")
        contexts[name] = Config(**values)
    return current, contexts
