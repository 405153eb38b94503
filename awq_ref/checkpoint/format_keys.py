"""What a configuration says about stored weights, as records, and the checks that all its readers share.

QuantizationConfig   integers: spec, layout, modules left in float, modules with a spec of their own
Float8Config         float8 weights, and how many of them share a scale
names_module         whether a list of names or patterns names a module
get, get_names, refuse_unless, spec_of   a key, a list of names, a kind that is not read, a spec
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from awq_ref.errors import FormatError, RangeError, UnsupportedError
from awq_ref.spec import QuantSpec

Config: TypeAlias = dict[str, Any]
Value = TypeVar("Value")

WHO = "read_quantization_config"
PATTERN = "re:"  # before a regular expression of compressed-tensors, matched from the start of a name
MAX_REPEATS = 5  # quantifiers in one; a name of n letters is then matched in at most some n**5 / 5! steps


def _matches(pattern: str, module: str) -> bool:
    """A whole name, some of its parts between dots, or a regular expression after "re:"."""
    if pattern.startswith(PATTERN):
        return re.match(pattern.removeprefix(PATTERN), module) is not None
    return f".{pattern}." in f".{module}."


def names_module(patterns: Iterable[str], module: str) -> bool:
    """Tell whether names or patterns, as configurations list them, name a module.

    Examples
    --------
    >>> names_module(["lm_head", "re:.*down_proj"], "model.layers.0.mlp.down_proj")
    True
    >>> names_module(["gate"], "model.layers.0.mlp.gate_proj")
    False
    """
    return any(_matches(pattern, module) for pattern in patterns)


@dataclass(frozen=True)
class QuantizationConfig:
    """How a checkpoint stores its integers.

    spec      : range_rule and scale_dtype are the defaults: formats do not record them
    layout    : a name in awq_ref.pack's LAYOUTS
    ignored   : modules left in float, as the config names them
    overrides : modules with a spec of their own; None: left in float
    """

    spec: QuantSpec
    layout: str
    ignored: tuple[str, ...] = ()
    overrides: Mapping[str, QuantSpec | None] = field(default_factory=dict)

    def spec_of(self, module: str) -> QuantSpec:
        """Return the spec of one module, by its whole name."""
        return self.overrides.get(module) or self.spec

    def must_be_float(self, module: str) -> bool:
        """Tell whether the configuration says that a module is not quantized."""
        return names_module(self.ignored, module) or self.overrides.get(module, self.spec) is None


@dataclass(frozen=True)
class Float8Config:
    """How a checkpoint stores its weights as float8 (e4m3).

    block   : rows and columns of weights that share a scale; 0: all of them
    scale   : the end of the name of the scales; a weight is its float8 number times its scale
    ignored : modules left in a wider float, as the config names them
    """

    block: tuple[int, int]
    scale: str
    ignored: tuple[str, ...] = ()

    def must_be_float(self, module: str) -> bool:
        """Tell whether the configuration says that a module is not stored as float8."""
        return names_module(self.ignored, module)


Quantization: TypeAlias = QuantizationConfig | Float8Config


def get(config: Mapping[str, Any], key: str, kind: type[Value], *other_names: str) -> Value:
    """Return the value of a key, or of another of its names; FormatError unless one is there, all agreeing."""
    found: dict[str, Value] = {}
    for name in (key, *other_names):
        if name in config:
            if type(config[name]) is not kind:  # not isinstance: True is no bit width
                raise FormatError(
                    f"{WHO}: {name} must be of type {kind.__name__}; got {config[name]!r}. Compare with the original."
                )
            found[name] = config[name]
    if not found:
        raise FormatError(f"{WHO}: quantization_config has no {key}. Compare it with the original.")
    require_agreement(found)
    return next(iter(found.values()))


def require_agreement(found: Mapping[str, object]) -> None:
    """Raise FormatError unless keys that mean the same have one value."""
    values = list(found.values())
    if any(value != values[0] for value in values):
        said = ", ".join(f"{name}={value!r}" for name, value in found.items())
        raise FormatError(
            f"{WHO}: {' and '.join(found)} must say the same; got {said}. Remove the wrong one."
        )


def _require_pattern(key: str, name: str) -> None:
    """Raise FormatError unless what follows "re:" is a regular expression that cannot take forever.

    A file may come from anyone, and matching can take exponentially long if a group is repeated.
    """
    pattern = name.removeprefix(PATTERN)
    try:
        re.compile(pattern)
    except re.error as error:
        raise FormatError(
            f"{WHO}: {key} must hold regular expressions after {PATTERN}; {name!r}: {error}."
        ) from None
    repeats = len(re.findall(r"[*+{]", pattern))
    if repeats > MAX_REPEATS or re.search(r"\)[*+{]", pattern):
        raise FormatError(
            f"{WHO}: {key} must hold patterns that repeat no group, and nothing more than {MAX_REPEATS} times; got "
            f"{name!r}."
        )


def get_names(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of names or patterns; absent and null mean none."""
    names = config.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"{WHO}: {key} must be a list of module names; got {names!r}.")
    for name in names:
        if name.startswith(PATTERN):
            _require_pattern(key, name)
    return tuple(names)


def refuse_unless(fits: bool, what: str, known: str) -> None:
    """Raise UnsupportedError: the file is right, awq_ref does not know this kind."""
    if not fits:
        raise UnsupportedError(f"{WHO}: {what} is not supported; awq_ref reads {known}.")


def spec_of(bits: int, group_size: int, symmetric: bool) -> QuantSpec:
    """Return the spec of a stored checkpoint; say that the file is wrong, not the caller."""
    try:
        return QuantSpec(bits=bits, group_size=group_size, symmetric=symmetric)
    except RangeError as error:
        raise FormatError(f"{WHO}: quantization_config cannot be read. {error}") from None
