"""As much of JSON Schema as the vectors' schemas use.

problems   what of a value a schema does not allow, each with its place; a keyword that is not known here is an error
"""

import re
from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
NOTES = {"$schema", "title", "$defs"}


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, TYPES[name])


def _object(value: dict[str, Any], schema: dict[str, Any], root: Any, place: str) -> Iterator[str]:
    known = schema.get("properties", {})
    yield from (f"{place}: lacks {name}" for name in schema.get("required", ()) if name not in value)
    extra = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            yield from problems(item, known[name], root, f"{place}.{name}")
        elif extra is False:
            yield f"{place}: has {name}"
        elif isinstance(extra, dict):
            yield from problems(item, extra, root, f"{place}.{name}")


def _array(value: list[Any], schema: dict[str, Any], root: Any, place: str) -> Iterator[str]:
    if len(value) < schema.get("minItems", 0):
        yield f"{place}: has {len(value)} items"
    for i, item in enumerate(value):
        yield from problems(item, schema.get("items", {}), root, f"{place}[{i}]")


def problems(value: Any, schema: dict[str, Any], root: Any = None, place: str = "") -> Iterator[str]:
    """Yield what is wrong with a value."""
    root = root or schema
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    for key, wanted in schema.items():
        match key:
            case "type":
                names = [wanted] if isinstance(wanted, str) else wanted
                if not any(_is(value, name) for name in names):
                    yield f"{place}: is no {wanted}"
            case "const" | "enum":
                if value not in ([wanted] if key == "const" else wanted):
                    yield f"{place}: {value!r} is not {wanted!r}"
            case "pattern":
                if isinstance(value, str) and not re.search(wanted, value):
                    yield f"{place}: {value[:40]!r} is not like {wanted}"
            case "minimum":
                if value < wanted:
                    yield f"{place}: {value} is below {wanted}"
            case "minLength":
                if len(value) < wanted:
                    yield f"{place}: is too short"
            case "oneOf" | "anyOf":
                n_fit = sum(not any(problems(value, option, root, place)) for option in wanted)
                if n_fit < 1 or (key == "oneOf" and n_fit > 1):
                    yield f"{place}: fits {n_fit} of the options"
            case "required" | "properties" | "additionalProperties":
                if key == next(k for k in schema if k in ("required", "properties", "additionalProperties")):
                    if isinstance(value, dict):
                        yield from _object(value, schema, root, place)
            case "items" | "minItems":
                if key == next(k for k in schema if k in ("items", "minItems")) and isinstance(value, list):
                    yield from _array(value, schema, root, place)
            case _:
                assert key in NOTES, f"the schema has the keyword {key}, which is not known here"
