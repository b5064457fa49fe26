"""Runs every example of the documentation against a server."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import hodei

PACKAGE = Path(hodei.__file__).parent
README = Path(__file__).parents[1] / "README.md"
MODULES = [
    "hodei",
    *(f"hodei.{module.name}" for module in pkgutil.iter_modules([str(PACKAGE)]) if module.name != "_gen"),
]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def run(test: doctest.DocTest) -> None:
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=failures.append)
    if failures:
        pytest.fail("".join(failures), pytrace=False)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "hodei.__main__"])
def test_docstrings(name: str, client: hodei.Client) -> None:
    module = importlib.import_module(name)
    names = {"hodei": hodei, "client": client, "asyncio": asyncio}
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=names):
        run(test)


@pytest.mark.usefixtures("server")
def test_readme() -> None:
    # Examples of one page go on from one another.
    blocks = re.findall(r"```pycon\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert blocks
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "README.md", str(README), 0)
    run(test)


def test_everything_public_is_documented() -> None:
    missing = [name for name in hodei.__all__ if name != "__version__" and not getattr(hodei, name).__doc__]
    for name in hodei.__all__:
        value = getattr(hodei, name)
        if isinstance(value, type):
            missing += [
                f"{name}.{member}"
                for member, each in vars(value).items()
                if not member.startswith("_") and (callable(each) or isinstance(each, property)) and not each.__doc__
            ]
    assert not missing
    assert isinstance(hodei, ModuleType)
