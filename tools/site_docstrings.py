"""The house's docstrings as reStructuredText, for the API reference.

    sections          docstring -> what stands before the first section, and name -> lines of each section
    as_restructured   docstring -> lines for Sphinx
    process           Sphinx's hook `autodoc-process-docstring`

A docstring is plain text: a summary, equations set in columns, `Source:`, then numpydoc's sections. What is set in
columns stays as it is; names and types become a definition list; ids of equations and pages of docs/ become links.
"""

import re
from collections.abc import Iterator
from typing import Any

SECTIONS = (
    "Parameters",
    "Returns",
    "Yields",
    "Raises",
    "Attributes",
    "Notes",
    "Examples",
    "References",
    "Warns",
)
EQUATION = re.compile(r"\[((?:AWQ|GPTQ|LLM|EVAL)-\d+)\]|\b(P-[A-Z]{3,})\b")
PAGE = re.compile(r"docs/([\w/-]+)\.md(#[\w-]+)?")
FIELD = re.compile(r"^(\w[\w, .]*?) +: +(\S.*)$")
SPECIAL = re.compile(r"([\\*|_])")


def sections(docstring: str) -> tuple[list[str], dict[str, list[str]]]:
    """Split a dedented docstring into the lines before the first section and the lines of each."""
    before: list[str] = []
    found: dict[str, list[str]] = {}
    current = before
    lines = docstring.splitlines()
    for number, line in enumerate(lines):
        if line in SECTIONS and lines[number + 1 : number + 2] and lines[number + 1].startswith("---"):
            current = found.setdefault(line, [])
        elif not (line.startswith("---") and number and lines[number - 1] in SECTIONS):
            current.append(line)
    return before, found


def _link(match: re.Match[str]) -> str:
    """An id of an equation or a law, or a page, becomes a link from a page of the folder api."""
    if match.re is EQUATION:
        name = match[1] or match[2]
        return f"`{name} <../docs/equations.html#{name.lower()}>`__"
    return f"`docs/{match[1]}.md <../docs/{match[1]}.html{match[2] or ''}>`__"


def inline(text: str) -> str:
    """Escape what reStructuredText would read as markup; set `code` and links."""
    parts = re.split(
        r"(`[^`]+`|\[(?:AWQ|GPTQ|LLM|EVAL)-\d+\]|\bP-[A-Z]{3,}\b|docs/[\w/-]+\.md(?:#[\w-]+)?)", text
    )
    out = []
    for part in parts:
        match = EQUATION.fullmatch(part) or PAGE.fullmatch(part)
        if match:
            out.append("\\ " + _link(match) + "\\ ")
        elif part.startswith("`") and part.endswith("`") and len(part) > 2:
            out.append(f"\\ :code:`{part[1:-1]}`\\ ".replace("\\`", "`"))
        else:
            out.append(SPECIAL.sub(r"\\\1", part).replace("`", "\\`"))
    return "".join(out)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def _literal(lines: list[str]) -> list[str]:
    return [".. code-block:: text", "", *("   " + line for line in lines), ""]


def _definitions(lines: list[str]) -> list[str]:
    """Lines `name : type`, with their descriptions indented below, as a definition list."""
    out: list[str] = []
    for line in lines:
        if not line.strip():
            out.append("")
        elif _indent(line):
            out.append("   " + inline(line.strip()))
        else:
            name, colon, kind = line.partition(" : ")
            out += ["", f"**{inline(name)}**" + (f" : {inline(kind)}" if colon else "")]
            out.append("   \\ ")  # a definition must not be empty
    return [*out, ""]


def _fields(block: list[str]) -> list[str]:
    out: list[str] = []
    for line in block:
        match = None if _indent(line) > 2 else FIELD.match(line.strip())
        if match:
            out += ["", f"**{inline(match[1].strip())}**", f"   {inline(match[2])}"]
        else:
            out.append("   " + inline(line.strip()))
    return [*out, ""]


def _prose(block: list[str]) -> list[str]:
    """One block before or between sections: an equation with its legend, fields, a list in columns, or prose."""
    out: list[str] = []
    rest = list(block)
    while rest:
        line = rest[0]
        if FIELD.match(line):
            return [*out, *_fields(rest)]
        if line.startswith("Equation ") or _indent(line) >= 4 or re.search(r"\S {3,}\S", line):
            end = next(
                (n for n, x in enumerate(rest) if n and not x.startswith(("Equation ", " "))), len(rest)
            )
            ids = " ".join(
                sorted({m[0] for x in rest[:end] for m in re.finditer(r"\[(?:AWQ|GPTQ|LLM|EVAL)-\d+\]", x)})
            )
            out += [f"Equation {inline(ids)}", ""] if ids else []
            out += _literal(rest[:end])
        else:
            end = next((n for n, x in enumerate(rest) if n and x.startswith("Equation ")), len(rest))
            if line.startswith(("Source:", "Sources:")):
                end = next((n for n, x in enumerate(rest) if n and not x.startswith(" ")), end)
            out += [*(inline(x.strip()) for x in rest[:end]), ""]
        rest = rest[end:]
    return out


def as_restructured(docstring: str) -> list[str]:
    """Return the lines that Sphinx reads for a docstring of the house."""
    before, found = sections(docstring)
    out = [line for block in _blocks(before) for line in _prose(block)]
    for name, lines in found.items():
        out += ["", f".. rubric:: {name}", ""]
        if name == "Examples":
            out += [".. code-block:: pycon", "", *("   " + line for line in lines), ""]
        elif name in ("Notes", "References"):
            out += [line for block in _blocks(lines) for line in _prose(block)]
        else:
            out += _definitions(lines)
    return out


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring, as Sphinx asks its listeners to: in place."""
    lines[:] = as_restructured("\n".join(lines))
