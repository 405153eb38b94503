"""Where the time of a forward pass goes, by layer and by operation, without a line of it being changed.

    Watch       seconds and calls by (layer, operation)
    watching    while it lasts, a decoder's operations are timed
    short_name  how a linear is called in a table

The decoder's linears are exchanged for ones that look at the clock, and so are the functions that `model.block` and
`model.decoder` call by name (FUNCTIONS). An operation's time is its own: what a timed call inside it takes is not
counted twice, so that all times add up to the whole.
"""

import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from awq_ref.model import Decoder
from awq_ref.spec import LinearOperator

OUTSIDE = -1  # the layer of what is before the first block and after the last
REST = "Python and the rest"
# module, function that it calls, operation
FUNCTIONS = (
    ("awq_ref.model.block", "attention", "attention"),
    ("awq_ref.model.block", "apply_rope", "rope"),
    ("awq_ref.model.block", "apply_norm", "norms"),
    ("awq_ref.model.block", "mlp_forward", "gate"),
    ("awq_ref.model.decoder", "apply_norm", "norms"),
    ("awq_ref.model.decoder", "make_context", "rope"),  # its tables
)


class Watch:
    """Seconds and calls by (layer, operation)."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[int, str], float] = defaultdict(float)
        self.calls: dict[tuple[int, str], int] = defaultdict(int)
        self.layer = OUTSIDE
        self._inner: list[float] = []  # per open call, what the timed calls inside it took

    def timed(self, operation: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the callable with a clock."""

        def run(*arguments: Any, **options: Any) -> Any:
            key = (self.layer, operation)
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                taken = time.perf_counter() - started
                self.seconds[key] += taken - self._inner.pop()
                self.calls[key] += 1
                if self._inner:
                    self._inner[-1] += taken

        return run

    def block(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return block_forward with a clock; it says which layer the calls inside it belong to."""
        timed = self.timed(REST, forward)

        def run(x: Any, block: Any, config: Any, context: Any) -> Any:
            self.layer = context.layer
            try:
                return timed(x, block, config, context)
            finally:
                self.layer = OUTSIDE

        return run

    def by_operation(self) -> dict[str, tuple[float, int]]:
        """Return operation -> (seconds, calls) of all layers, the longest first."""
        found: dict[str, tuple[float, int]] = {}
        for (layer, operation), seconds in self.seconds.items():
            before = found.get(operation, (0.0, 0))
            found[operation] = before[0] + seconds, before[1] + self.calls[layer, operation]
        return dict(sorted(found.items(), key=lambda item: -item[1][0]))

    def by_layer(self) -> dict[int, float]:
        """Return layer -> seconds of all its operations; OUTSIDE is what belongs to no layer."""
        found: dict[int, float] = defaultdict(float)
        for (layer, _), seconds in self.seconds.items():
            found[layer] += seconds
        return dict(sorted(found.items()))


class _TimedLinear:
    """A linear with a clock; everything else of it is the linear's own."""

    def __init__(self, linear: LinearOperator, name: str, watch: Watch) -> None:
        self._linear, self._call = linear, watch.timed(name, linear)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._linear, name)

    def __call__(self, x: Any) -> Any:
        return self._call(x)


def short_name(name: str, linears: dict[str, LinearOperator]) -> str:
    """Return how a linear is called in a table: `o_proj`; parts of one product share a name, `gate_proj+up_proj`."""
    whole = getattr(linears[name], "whole", None)
    same = [
        other for other in linears if whole is not None and getattr(linears[other], "whole", None) is whole
    ]
    return "+".join(other.split(".")[-1] for other in same or [name])


def _timed_linears(linears: dict[str, LinearOperator], watch: Watch) -> dict[str, Any]:
    """Return timed linears for those of a block; parts of one product stay so, and their whole is timed."""
    wholes: dict[int, _TimedLinear] = {}
    timed: dict[str, Any] = {}
    for name, linear in linears.items():
        short, whole = short_name(name, linears), getattr(linear, "whole", None)
        if whole is None:
            timed[name] = _TimedLinear(linear, short, watch)
        else:
            clock = wholes.setdefault(id(whole), _TimedLinear(whole, short, watch))
            timed[name] = replace(linear, whole=clock)  # type: ignore[type-var]
    return timed


def _exchange(stack: ExitStack, place: object, name: str, new: object) -> None:
    """Set an attribute until the stack unwinds."""
    stack.callback(setattr, place, name, getattr(place, name))
    setattr(place, name, new)


@contextmanager
def watching(decoder: Decoder) -> Iterator[Watch]:
    """Time the operations of a decoder: `with watching(decoder) as watch: watch.timed(REST, decoder.forward)(...)`.

    One decoder at a time, on one thread: the functions are exchanged for the whole process.
    """
    watch = Watch()
    with ExitStack() as stack:
        for module, function, operation in FUNCTIONS:
            place = importlib.import_module(module)
            _exchange(stack, place, function, watch.timed(operation, getattr(place, function)))
        place = importlib.import_module("awq_ref.model.decoder")
        _exchange(stack, place, "block_forward", watch.block(place.block_forward))
        for block in decoder.blocks:
            stack.callback(block.linears.update, dict(block.linears))
            block.linears.update(_timed_linears(block.linears, watch))
        _exchange(stack, decoder, "lm_head", _TimedLinear(decoder.lm_head, "head", watch))
        yield watch
