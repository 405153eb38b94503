"""Where chat templates run: jinja2's sandbox, with the functions that transformers gives them, and with bounds.

    compile_template   source -> something that renders
    Bounded            what it is: render(variables) -> text
    BoundsError        a bound was reached

A template comes from a checkpoint, so it is a stranger's program. The sandbox keeps it from Python's internals and from
changing what it is given; jinja2 alone bounds `range`. Here the syntax tree gets a step counter: every turn of a loop
and every call of a macro costs a step, a step looks at the clock, and texts, lists and integers that the template makes
have a largest size. What is not bounded: the work within one step (a filter over the largest text), and memory
below some of the largest texts at once.

Only `awq_ref.text.chat_template` imports this module, when a template is used: jinja2 is an extra.
"""

import datetime
import json
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

MAX_SOURCE = 1_000_000  # characters of a template; the longest published ones have some 20 000
MAX_STEPS = 300_000  # a conversation of 500 messages, each of which looks at all others
MAX_SECONDS = 10.0
MAX_TEXT = 4_000_000  # characters of any text
MAX_ITEMS = 100_000  # of any list; jinja2's own limit of range
MAX_INTEGER_BITS = 256


class BoundsError(Exception):
    """A template reached one of the bounds; the message says which."""


def _check_size(value: Any) -> Any:
    """Return a value, or raise BoundsError if it is larger than a template may make it."""
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise BoundsError(f"made a text of more than {MAX_TEXT} characters")
    if isinstance(value, list | tuple | dict) and len(value) > MAX_ITEMS:
        raise BoundsError(f"made a list of more than {MAX_ITEMS} items")
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise BoundsError("made an integer that is too large")
    return value


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(str(value)) if isinstance(value, int | float) else 1


def _formatted_size(text: str, values: Iterable[Any]) -> int:
    """Return the length that a formatted text has at most: its widths, and a value in every place."""
    widths = [int(run) for run in "".join(c if c.isdecimal() else " " for c in text).split()]
    places = text.count("%") + text.count("{")
    return len(text) + max(widths, default=0) + places * max(map(_length, values), default=0)


def _replaced_size(text: str, old: str = "", new: str = "", *_: Any) -> int:
    return len(text) + str(text).count(str(old)) * _length(new)


def _joined_size(between: str, values: Any = (), *_: Any) -> int:
    return sum(_length(value) + len(between) for value in values) if hasattr(values, "__len__") else 0


# name of a method of texts, or of a filter -> the length of what it makes, from the text and its arguments
SIZES: dict[str, Callable[..., int]] = {
    "replace": _replaced_size,
    "join": _joined_size,
    "format": lambda text, *values: _formatted_size(text, values),
    "do_replace": lambda _, text, *rest: _replaced_size(str(text), *rest),
    "do_join": lambda _, values, between="", *rest: _joined_size(str(between), values),
    "do_format": lambda text, *values: _formatted_size(str(text), values),
}


def _check_arguments(function: Callable[..., Any], arguments: list[Any]) -> None:
    """Raise BoundsError if a width, or what a method of a text makes, would be too large."""
    text, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    size = 0
    if name in SIZES:
        size = SIZES[name](*([text, *arguments] if isinstance(text, str) else arguments))
    widths = [abs(argument) for argument in arguments if isinstance(argument, int)]
    if max([size, *widths]) > MAX_TEXT:
        raise BoundsError(f"made a text of more than {MAX_TEXT} characters")


def _bounded_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # with the marks by which jinja2 passes it a context or an environment
    def bounded(*arguments: Any, **options: Any) -> Any:
        _check_arguments(function, [*arguments, *options.values()])
        return _check_size(function(*arguments, **options))

    return bounded


def _concat(pieces: Iterable[Any]) -> str:
    """Join what a template prints; the size is known before memory is taken."""
    texts = list(pieces)
    if sum(map(len, texts)) > MAX_TEXT:
        raise BoundsError(f"made a text of more than {MAX_TEXT} characters")
    return "".join(texts)


def _binary_cost(operator: str, left: Any, right: Any) -> tuple[float, float]:
    """Return the size of left OPERATOR right, before it is computed, and the largest allowed."""
    if isinstance(left, int) and isinstance(right, int):
        bits = (
            left.bit_length() * max(right, 0) if operator == "**" else left.bit_length() + right.bit_length()
        )
        return bits, MAX_INTEGER_BITS
    if operator == "%" and isinstance(left, str):  # a format: its widths are texts of digits
        return _formatted_size(left, right if isinstance(right, tuple) else [right]), MAX_TEXT
    sizes = [len(v) if isinstance(v, str | list | tuple) else 1 for v in (left, right)]
    most = MAX_TEXT if isinstance(left, str) or isinstance(right, str) else MAX_ITEMS
    if operator == "*":
        count = next((v for v in (left, right) if isinstance(v, int)), 1)
        return max(sizes) * max(count, 1), most
    return sum(sizes), most


class _StepCounter(NodeTransformer):
    """Puts a call of the step counter into every loop and macro, and makes `~` a call that is bounded."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Change a node, its children first."""
        self.generic_visit(node)
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
            step = nodes.Call(
                nodes.EnvironmentAttribute("count_step"), [], [], None, None, lineno=node.lineno
            )
            node.body = [nodes.ExprStmt(step, lineno=node.lineno), *node.body]
        if isinstance(node, nodes.Concat):
            joined = nodes.EnvironmentAttribute("joined")
            return nodes.Call(joined, node.nodes, [], None, None, lineno=node.lineno)
        return node


class _Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %}: what marks the assistant's text for training prints its body."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(lineno)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict` without its attributes."""

    def __call__(self, *arguments: Any, **values: Any) -> dict[Any, Any]:
        return dict(*arguments, **values)


class _Namespace(jinja2.utils.Namespace):
    """`namespace`, whose attributes may not begin with an underscore."""

    def __init__(*arguments: Any, **values: Any) -> None:
        self, *rest = arguments
        attributes = dict(*rest, **values)
        for name in attributes:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: str) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace may not have an attribute {name!r}")


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: jinja2's own filter escapes it for HTML and sorts the keys."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox, with bounds. One per template: it counts the steps of one rendering at a time."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(_concat)

    def __init__(self) -> None:
        extensions = [_Generation, jinja2.ext.loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self.filters["tojson"] = _tojson
        self.filters = {name: _bounded_filter(function) for name, function in self.filters.items()}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.globals |= {"dict": _Dict(), "namespace": _Namespace}
        del self.globals["lipsum"]  # a maker of long texts
        self.start_counting()

    def start_counting(self) -> None:
        """Begin a rendering."""
        self.steps, self.ends_at = 0, time.monotonic() + MAX_SECONDS

    def count_step(self) -> str:
        """Count a turn of a loop, or a call of a macro."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise BoundsError(f"took more than {MAX_STEPS} steps")
        if time.monotonic() > self.ends_at:
            raise BoundsError(f"took more than {MAX_SECONDS:.0f} seconds")
        return ""

    def joined(self, *values: Any) -> str:
        """What `~` does."""
        return _concat(map(str, values))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _StepCounter().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        cost, most = _binary_cost(operator, left, right)
        if cost > most:
            raise BoundsError("made a text, list or integer that is too large")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2 wraps format
        if isinstance(getattr(method, "__self__", None), str):  # a method of a text
            _check_arguments(method, [*args, *kwargs.values()])
        return _check_size(super().call(__context, __obj, *args, **kwargs))


class Bounded:
    """A compiled template."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            raise BoundsError(f"has more than {MAX_SOURCE} characters")
        self._environment = _Environment()
        self._template = self._environment.from_string(source)

    def render(self, variables: dict[str, Any]) -> str:
        """Return the text, or raise BoundsError, or what jinja2 or the template raises."""
        self._environment.start_counting()
        pieces, size = [], 0
        for piece in self._template.generate(variables):
            size += len(piece)
            if size > MAX_TEXT:
                raise BoundsError(f"made a text of more than {MAX_TEXT} characters")
            pieces.append(piece)
        return "".join(pieces)


def compile_template(source: str) -> Bounded:
    """Compile a template (BoundsError if it is too long; jinja2's TemplateSyntaxError)."""
    return Bounded(source)
