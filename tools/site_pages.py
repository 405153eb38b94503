"""Pages of the site that are made, not written.

    written      the pages of docs/, examples/ and tutorials/ as the site has them
    api_pages    one page per room: every public name
    carriers     one page per equation and law: the functions and the tests that carry it, with their source
    llms         llms.txt: the map of the site for programs that read it

All return path -> text; tools/build_site.py writes them.
"""

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import site_docstrings

import awq_ref

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    "awq_ref", "awq_ref.quantize", "awq_ref.pack", "awq_ref.matmul", "awq_ref.search", "awq_ref.calibration",
    "awq_ref.model", "awq_ref.text", "awq_ref.checkpoint", "awq_ref.pipeline", "awq_ref.vectors",
)  # fmt: skip
MODULES = (
    "awq_ref.spec", "awq_ref.errors", "awq_ref.report.errors", "awq_ref.report.memory", "awq_ref.report.perplexity",
    "awq_ref.explain.page", "awq_ref.explain.record", "awq_ref.explain.subject",
    "awq_ref.report.divergence", "awq_ref.report.quantization", "awq_ref.report.tables",
)  # fmt: skip
FENCE = re.compile(r"(^(`{3,}|~{3,})[^\n]*\n.*?^\2[ \t]*$)", flags=re.MULTILINE | re.DOTALL)
CARRIER = re.compile(r"^(Code|Test): ((?:.+)(?:\n {2,}.+)*)$", flags=re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:#]+)\)")
CODE_LINK = re.compile(r'href="(?:\.\./)*code/([\w./-]+)\.html"')
SECTION = re.compile(r"^#{2,} (?:\[((?:AWQ|GPTQ|LLM|EVAL)-\d+)\]|(P-[A-Z]+)\b)", flags=re.MULTILINE)


def public_names(module_name: str) -> list[str]:
    """Return the public names of a room (its `__all__`), or what a module defines itself."""
    module = importlib.import_module(module_name)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", None) == module_name
    ]


def _outside_code(text: str, change: re.Pattern[str], to: str | Callable[[re.Match[str]], str]) -> str:
    parts = FENCE.split(text)  # prose, block, its fence, prose, ...
    parts[0::3] = [change.sub(to, part) for part in parts[0::3]]
    del parts[2::3]
    return "".join(parts)


def _one_title(text: str) -> str:
    """A page with several titles has one on the site: the others go one level down."""
    prose = "".join(FENCE.split(text)[0::3])
    if len(re.findall(r"^# ", prose, flags=re.MULTILINE)) < 2:
        return text
    first, newline, rest = text.partition("\n")
    return first + newline + _outside_code(rest, re.compile(r"^#(#*) ", flags=re.MULTILINE), r"##\1 ")


def _with_carriers(text: str) -> str:
    """Make the names of `Code:` and `Test:` links to the page of their equation, with their source."""
    out, here = [], ""
    for part in re.split(r"(?=^## |^### )", text, flags=re.MULTILINE):
        match = SECTION.match(part)
        here = (match[1] or match[2]).lower() if match else here

        def linked(line: re.Match[str], page: str = here) -> str:
            link = rf'<a href="carriers/{page}.html"><code>\1</code></a>'
            return f"**{line[1]}:** " + re.sub(r"`([^`]+)`", link, line[2]) + "\n"

        out.append(CARRIER.sub(linked, part) if match else part)
    return "".join(out)


def _to_site(page: Path, text: str) -> str:
    """Turn links to the README, to chapters not yet there and to programs into links to the site's pages."""
    up = "../" * len(page.relative_to(ROOT).parts[:-1])

    def changed(match: re.Match[str]) -> str:
        label, path = match[1], (page.parent / match[2]).resolve()
        if path == ROOT / "README.md":
            return f"[{label}]({up}index.md)"
        if not path.is_relative_to(ROOT):
            return match[0]
        if path.parent == ROOT / "tutorials":
            return match[0] if path.exists() else label
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py" or name.startswith("awq_ref/"):
            return f'<a href="{up}code/{name}.html">{label}</a>'
        return match[0]

    if page.suffix == ".py":  # links stand in the cells of text, which are comments
        return re.sub(r"^#.*$", lambda line: LINK.sub(changed, line[0]), text, flags=re.MULTILINE)
    return _outside_code(text, LINK, changed)


def written(page: Path) -> str:
    """Return a page of the repository as the site has it."""
    text = _to_site(page, page.read_text(encoding="utf-8"))
    if page.suffix == ".py":
        return text
    text = re.sub(r"^<!-- snippet: [^>]*-->\n+", "", text, flags=re.MULTILINE)
    if page.name == "equations.md":
        text = _with_carriers(text)
    if page.name == "index.md" and page.parent.name == "paper":
        names = sorted(other.stem for other in page.parent.glob("*.md") if other != page)
        text += "\n".join(["", "```{toctree}", ":hidden:", "", *names, "```", ""])
    return _one_title(text)


def landing(page: Path, explore: str) -> str:
    """Return the first page: its links start at the root of the site; the page of the explorer is there or not."""
    return written(page).replace("](../", "](docs/").replace("@EXPLORE@", explore)


def programs(pages: dict[str, str]) -> dict[str, str]:
    """Return a page with the source of each program that one of the pages links to."""
    made = {}
    for name in sorted({name for text in pages.values() for name in CODE_LINK.findall(text)}):
        up = "../" * name.count("/")
        made[f"code/{name}.md"] = "\n".join([
            "---", "orphan: true", "---", "", f"# {name}", "", f"```{{literalinclude}} ../{up}repository/{name}",
            "```" if not name.endswith(".py") else ":language: python\n:linenos:\n```", ""])  # fmt: skip
    return made


def changelog() -> str:
    """Return the changelog, whose links start at the root."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return text.replace("](README.md", "](index.md")


def tutorials() -> str:
    """Return the course's first page, with its chapters below it."""
    readme = ROOT / "tutorials" / "README.md"
    text = written(readme) if readme.exists() else "# The course\n"
    return text + "\n```{toctree}\n:hidden:\n:glob:\n\n[0-9]*\n```\n"


def explorer_page() -> str:
    """Return the page around what `awq-ref explain` made."""
    page = "../_static/explain.html"
    return f"""# A layer, step by step

Weights of one group, what they meet, the search, the codes, the bits, the product: made by `awq-ref explain` from the
embedded model, every number by the package. <a href="{page}">Open it as a page of its own</a>.

<iframe class="explorer" src="{page}" title="A layer of the embedded model, step by step"></iframe>
"""


def _summary(thing: object) -> str:
    """The first line of a docstring, as reStructuredText."""
    return site_docstrings.inline((inspect.getdoc(thing) or "").partition("\n")[0])


def _entry(module_name: str, name: str) -> list[str]:
    thing = getattr(importlib.import_module(module_name), name)
    path = f"{module_name}.{name}"
    if home := getattr(awq_ref, "_HOMES", {}).get(name) if module_name == "awq_ref" else None:
        return [f"* :py:obj:`{home}.{name}`: {_summary(thing)}", ""]  # described on the page of its room
    if inspect.isclass(thing):
        return [f".. autoclass:: {path}", "   :members:", ""]
    if inspect.isroutine(thing):
        return [f".. autofunction:: {path}", ""]
    shown = repr(thing)
    value = ["   :value: " + shown] if len(shown) <= 60 and "\n" not in shown else []
    kind = type(thing).__name__
    return [
        f".. py:data:: {path}",
        *value,
        "",
        f"   A value of type ``{kind}``; its module says what it holds.",
        "",
    ]


def _module_doc(module_name: str) -> list[str]:
    doc = inspect.getdoc(importlib.import_module(module_name)) or ""
    return [".. code-block:: text", "", *("   " + line for line in doc.splitlines()), ""]


def api_pages() -> dict[str, str]:
    """Return the pages of the API reference."""
    pages = {}
    for module_name in (*ROOMS, *MODULES):
        rule = "=" * len(module_name)
        lines = [module_name, rule, "", *_module_doc(module_name)]
        for name in public_names(module_name):
            lines += _entry(module_name, name)
        pages[f"api/{module_name}.rst"] = "\n".join(lines)
    index = ["# API reference", "", "Every public name, from its docstring. `import awq_ref` gives the names of the",
             "first page; each room's `__init__.py` lists its own. Shapes, dtypes and errors stand with every",
             "function; *[source]* opens the line that computes it.",
             "", "```{toctree}", ":maxdepth: 1", ""]  # fmt: skip
    pages["api/index.md"] = "\n".join([*index, *(*ROOMS, *MODULES), "```", ""])
    return pages


def _include(name: str, depth: str) -> list[str]:
    """The source of `awq_ref.room.module.name` or `tests/file.py::name`."""
    file, _, thing = name.partition("::")
    if not thing:
        parts = name.split(".")
        split = next(
            n for n in range(len(parts) - 1, 0, -1) if ROOT.joinpath(*parts[:n]).with_suffix(".py").exists()
        )
        file, thing = "/".join(parts[:split]) + ".py", ".".join(parts[split:])
    return [f"## `{thing}` in `{file}`", "", f"```{{literalinclude}} {depth}{file}", ":language: python",
            f":pyobject: {thing}", ":lineno-match:", "```", ""]  # fmt: skip


def carriers() -> dict[str, str]:
    """Return a page for every equation and law of docs/equations.md: the code and the tests that carry it."""
    text = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
    pages = {}
    for part in re.split(r"(?=^## |^### )", text, flags=re.MULTILINE):
        match = SECTION.match(part)
        if not match:
            continue
        name = match[1] or match[2]
        title = part.partition("\n")[0].lstrip("# ")
        lines = ["---", "orphan: true", "---", "", f"# {title}: what carries it", "",
                 f"The statement and its derivation: [{name}](../equations.md#{name.lower()}).", ""]  # fmt: skip
        for line in CARRIER.finditer(part):
            for carrier in dict.fromkeys(re.findall(r"`([^`]+)`", line[2])):
                lines += _include(carrier, "../../repository/")
        pages[f"docs/carriers/{name.lower()}.md"] = "\n".join(lines)
    return pages


def examples() -> str:
    """Return the page of the examples, with the programs below the table."""
    lines = [written(ROOT / "examples" / "README.md")]
    for path in sorted((ROOT / "examples").glob("*.py")):
        lines += [f"## {path.name}", "", f"```{{literalinclude}} {path.name}", ":language: python", "```", ""]
    return "\n".join([*lines, "```{toctree}", ":hidden:", "", "backends/README", "```", ""])


def llms(pages: dict[str, str]) -> str:
    """Return llms.txt: one line per page, with the first sentence of it."""
    lines = ["# awq_ref", "", "> AWQ quantization and int4 LLM inference in pure NumPy: from a Hugging Face checkpoint",
             "> to 4-bit text, an oracle with golden vectors for other implementations, and a course.", ""]  # fmt: skip
    for folder, title in (
        ("", "Start"),
        ("docs/", "Documentation"),
        ("tutorials/", "Tutorials"),
        ("api/", "API reference"),
    ):
        lines += [f"## {title}", ""]
        for name, text in sorted(pages.items()):
            here = name.startswith(folder) if folder else "/" not in name
            if here and "orphan: true" not in text:
                heading = re.search(r"^(?:# )+(.+)$|^(\S+)\n===", text, flags=re.MULTILINE)
                label = (heading[1] or heading[2]) if heading else name
                lines.append(f"- [{label}]({name.rpartition('.')[0]}.html)")
        lines.append("")
    return "\n".join(lines)
