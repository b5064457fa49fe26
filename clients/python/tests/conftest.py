"""A server for the tests that need one: HODEI_BINARY names the `hodei` program, which is started with `dev`."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import hodei

if TYPE_CHECKING:
    from collections.abc import Iterator

START_LIMIT = 30.0


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a server with a worker, and let clients without arguments use it."""
    binary = os.environ.get("HODEI_BINARY")
    if not binary:
        pytest.skip("HODEI_BINARY does not name the hodei program")
    home = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HODEI_") and name != "HODEI_BINARY"]:
            patch.delenv(name)
        for name in ("CONFIG", "DATA", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [binary, "dev", "--listen", "127.0.0.1:0", "--ops-listen", "-"], stdout=log, stderr=log
            )
        try:
            _ready(process)
            yield
        finally:
            process.terminate()
            process.wait()


def _ready(process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_LIMIT
    while True:
        try:
            with hodei.Client() as client:
                client.run(["true"])
        except hodei.HodeiError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def client(server: None) -> Iterator[hodei.Client]:  # noqa: ARG001 - is there first
    """Return a client of the server."""
    with hodei.Client() as client:
        yield client
