"""Prints the reference of the Python client, made from its docstrings, as Markdown."""

import enum
import inspect
import re
import sys
from dataclasses import fields, is_dataclass

import hodei


def text(thing: object) -> str:
    """Return a docstring, its examples as blocks and its arguments as lists."""
    doc = inspect.getdoc(thing) or ""
    doc = re.sub(r"(?m)^(Args|Returns|Raises|Yields|Attributes):$", r"**\1:**\n", doc)
    doc = re.sub(r"(?m)^    (\*{0,2}\w+): ", r"- `\1`: ", doc)
    doc = re.sub(r"(?m)^        (?=\S)", "  ", doc)
    out, example = [], False
    for line in doc.splitlines():
        if line.startswith(">>>") and not example:
            out.append("```pycon")
            example = True
        if example and not line:
            out.append("```")
            example = False
        out.append(line)
    return "\n".join([*out, "```"] if example else out)


def signature(thing: object) -> str:
    """Return how something is called, without what the reader knows."""
    try:
        shown = str(inspect.signature(thing))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "()"
    return re.sub(r"\(self(?:, )?", "(", shown).replace("'", "")


def members(cls: type) -> list[str]:
    """Describe the public methods and properties of a class, those of its bases of this package included."""
    out = []
    for name, member in inspect.getmembers(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), cls)
        if name.startswith("_") or not owner.__module__.startswith("hodei"):
            continue
        if isinstance(member, property):
            out.append(f"#### {cls.__name__}.{name}\n\n{text(member)}\n")
        elif callable(member):
            kind = "async " if inspect.iscoroutinefunction(member) else ""
            out.append(f"#### {kind}{cls.__name__}.{name}\n\n```python\n{name}{signature(member)}\n```\n\n{text(member)}\n")
    return out


def entry(name: str) -> str:
    """Describe one public name."""
    thing = getattr(hodei, name)
    if inspect.isclass(thing) and issubclass(thing, enum.Enum):
        return f"### {name}\n\n{text(thing)}\n\n" + ", ".join(f"`{value.name}`" for value in thing) + "\n"
    parts = [f"### {name}\n"]
    if inspect.isclass(thing):
        bases = [f"`{base.__name__}`" for base in thing.__bases__ if base.__module__.startswith("hodei") and base.__name__[0] != "_"]
        parts += [f"A kind of {' and '.join(bases)}.\n"] if bases else []
    if not (inspect.isclass(thing) and issubclass(thing, BaseException)):
        parts.append(f"```python\n{name}{signature(thing)}\n```\n")
    parts.append(text(thing) + "\n")
    if inspect.isclass(thing):
        if is_dataclass(thing):
            parts.append("Fields: " + ", ".join(f"`{field.name}`" for field in fields(thing) if field.name[0] != "_") + "\n")
        parts += members(thing)
    return "\n".join(parts)


def main() -> None:
    """Print the whole reference."""
    print("# Python\n\nMade from the docstrings by `scripts/gen`; do not edit it.\n")
    print(text(hodei) + "\n")
    errors = [name for name in hodei.__all__ if isinstance(getattr(hodei, name), type) and issubclass(getattr(hodei, name), Exception)]
    groups = {
        "Clients": ["Client", "AsyncClient"],
        "Jobs": [name for name in hodei.__all__ if "Job" in name and name not in errors],
        "Errors": errors,
    }
    done = {name for names in groups.values() for name in names} | {"errors"}
    groups["More"] = [name for name in hodei.__all__ if name not in done and not name.startswith("__")]
    for title, names in groups.items():
        print(f"## {title}\n")
        for name in names:
            print(entry(name))


if __name__ == "__main__":
    sys.exit(main())
