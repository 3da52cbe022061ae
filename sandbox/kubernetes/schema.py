"""Structural schemas of custom resources: pruning, defaulting and validation, as the API server does them.

Guarantees:
- This module refuses a schema with an unknown keyword when a client creates its CRD (501).
- So it never refuses an object wrongly.
- It never accepts one wrongly, except against CEL rules (`x-kubernetes-validations`), which it knows and ignores.

Only a real API server can show the refusals of CEL rules.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from sandbox.kubernetes.errors import Cause, not_served, required, too_long, too_many, unsupported, wrong
from sandbox.transport.wire import dump

Schema = dict[str, Any]

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_RULES = "x-kubernetes-validations"
_SILENT = {"description", "title", "example", "externalDocs", "nullable", "x-kubernetes-map-type", "default"} | {_RULES}
_KNOWN = _SILENT | {
    _PRESERVE,
    _INT_OR_STRING,
    "type",
    "format",
    "properties",
    "additionalProperties",
    "items",
    "required",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "uniqueItems",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}
_FORMATS = {"date-time", "duration", "int32", "int64", "byte", "double", "float", "password"}
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _TYPES["number"](value) and value == int(value) and abs(value) < 2**63,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_GO_DURATION = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*|0")
_SHORT_UNITS = {"ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk"}
_LONG_UNITS = ("nano", "micro", "milli", "sec", "min", "hour", "day", "week")


def check(schema: Schema, path: str = "openAPIV3Schema") -> None:
    """Refuse a schema with a keyword that this module does not know."""
    for word in schema.keys() - _KNOWN:
        raise not_served(f"{word} in a schema (at {path})")
    if schema.get("format", "date-time") not in _FORMATS:
        raise not_served(f"format {schema['format']} in a schema (at {path})")
    for name, inner in _subschemas(schema):
        check(inner, f"{path}.{name}")


def prune(value: Any, schema: Schema, path: str = "") -> list[str]:
    """Remove, in place, the fields that the schema does not name; returns the removed paths."""
    gone: list[str] = []
    if isinstance(value, list):
        for index, item in enumerate(value):
            gone += prune(item, schema.get("items", {_PRESERVE: True}), f"{path}[{index}]")
    elif isinstance(value, dict):
        for name in list(value):
            inner = _property(schema, name)
            if inner is None and not path and name in ("apiVersion", "kind", "metadata"):
                continue
            if inner is not None:
                if path or name != "metadata":
                    gone += prune(value[name], inner, f"{path}.{name}" if path else name)
            elif not schema.get(_PRESERVE):
                del value[name]
                gone.append(f"{path}.{name}" if path else name)
    return gone


def apply_defaults(value: Any, schema: Schema) -> None:
    """Fill in, in place, the defaults of absent or null fields; a forbidden null without a default goes."""
    if isinstance(value, list):
        for item in value:
            apply_defaults(item, schema.get("items", {}))
    elif isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            absent = name not in value or (value[name] is None and not inner.get("nullable"))
            if absent and "default" in inner:
                value[name] = copied(inner["default"])
            elif absent:
                value.pop(name, None)
        for name, item in list(value.items()):
            inner = _property(schema, name)
            if inner is None:
                continue
            if item is None and not inner.get("nullable") and inner != {_PRESERVE: True}:
                del value[name]  # only a map's entry can still be null: the loop above handled the properties
            else:
                apply_defaults(item, inner)


def validate(value: Any, schema: Schema, path: str = "") -> list[Cause]:
    """The faults of the value."""
    if value is None and schema.get("nullable"):
        return []
    causes = _check_type(value, schema, path)
    if causes:
        return causes
    if "enum" in schema and value not in schema["enum"]:
        causes.append(unsupported(path, value, schema["enum"]))
    if isinstance(value, str):
        causes += _check_string(value, schema, path)
    elif isinstance(value, dict):
        causes += _check_object(value, schema, path)
    elif isinstance(value, list):
        causes += _check_array(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        causes += _check_number(value, schema, path)
    return causes + _check_combinations(value, schema, path)


def copied(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def _subschemas(schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield from schema.get("properties", {}).items()
    for word in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(word), dict):
            yield word, schema[word]
    for word in ("allOf", "anyOf", "oneOf"):
        for index, inner in enumerate(schema.get(word, ())):
            yield f"{word}[{index}]", inner


def _property(schema: Schema, name: str) -> Schema | None:
    inner: Schema | None = schema.get("properties", {}).get(name)
    if inner is None:
        additional = schema.get("additionalProperties")
        inner = {_PRESERVE: True} if additional is True else additional or None
    return inner


def _check_type(value: Any, schema: Schema, path: str) -> list[Cause]:
    if schema.get(_INT_OR_STRING):
        fits, wanted = _TYPES["integer"](value) or isinstance(value, str), "integer,string"
    elif "type" in schema:
        fits, wanted = _TYPES[schema["type"]](value), schema["type"]
    else:
        return []
    if fits:
        return []
    return [_mistyped(path, wanted, _type_name(value))]


def _mistyped(path: str, wanted: str, found: str) -> Cause:
    quoted = dump(found).decode()
    text = f"Invalid value: {quoted}: {path} in body must be of type {wanted}: {quoted}"
    return Cause(path, "FieldValueTypeInvalid", text)


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    return next(name for name in ("object", "array", "string", "boolean", "integer", "number") if _TYPES[name](value))


def _check_string(value: str, schema: Schema, path: str) -> list[Cause]:
    causes = []
    if len(value) < schema.get("minLength", 0):
        causes.append(wrong(path, value, f"{path} in body should be at least {schema['minLength']} chars long"))
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        causes.append(too_long(path, schema["maxLength"]))
    if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
        causes.append(wrong(path, value, f"{path} in body should match '{schema['pattern']}'"))
    wanted = schema.get("format")
    if (wanted == "date-time" and not _is_date_time(value)) or (wanted == "duration" and not _is_duration(value)):
        causes.append(_mistyped(path, wanted, value))
    return causes


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    # Go's `$` is the very end; Python's also matches before a final newline.
    return re.compile(text[:-1] + r"\Z" if text.endswith("$") else text, re.ASCII)


def _is_date_time(value: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[-+]\d\d:\d\d)", value):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", value.upper()))
    except ValueError:
        return False
    return True


def _is_duration(value: str) -> bool:
    if _GO_DURATION.fullmatch(value):
        return True
    # The API server is generous: any number with a unit anywhere will do, `1 week` as well as `about 2 days`.
    units = [unit.lower() for unit in re.findall(r"\d+\s*([A-Za-zµ]+)", value)]
    return any(unit in _SHORT_UNITS or unit.startswith(_LONG_UNITS) for unit in units)


def _check_number(value: float, schema: Schema, path: str) -> list[Cause]:
    causes = []
    if "minimum" in schema:
        exclusive = schema.get("exclusiveMinimum", False)
        if value < schema["minimum"] or (exclusive and value == schema["minimum"]):
            words = "greater than" if exclusive else "greater than or equal to"
            causes.append(wrong(path, value, f"{path} in body should be {words} {schema['minimum']}"))
    if "maximum" in schema:
        exclusive = schema.get("exclusiveMaximum", False)
        if value > schema["maximum"] or (exclusive and value == schema["maximum"]):
            words = "less than" if exclusive else "less than or equal to"
            causes.append(wrong(path, value, f"{path} in body should be {words} {schema['maximum']}"))
    if "multipleOf" in schema and value % schema["multipleOf"]:
        causes.append(wrong(path, value, f"{path} in body should be a multiple of {schema['multipleOf']}"))
    return causes


def _check_array(value: list[Any], schema: Schema, path: str) -> list[Cause]:
    causes = []
    if len(value) < schema.get("minItems", 0):
        causes.append(wrong(path, len(value), f"{path} in body should have at least {schema['minItems']} items"))
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        causes.append(too_many(path, len(value), schema["maxItems"]))
    for index, item in enumerate(value):
        causes += validate(item, schema.get("items", {}), f"{path}[{index}]")
    return causes or _check_unique(value, schema, path)


def _check_unique(value: list[Any], schema: Schema, path: str) -> list[Cause]:
    causes = []
    kind = schema.get("x-kubernetes-list-type", "set" if schema.get("uniqueItems") else "atomic")
    keys = schema.get("x-kubernetes-list-map-keys", [])
    seen: set[bytes] = set()
    for index, item in enumerate(value if kind in ("set", "map") else ()):
        identity = dump(item if kind == "set" else {key: item.get(key) for key in keys})
        if identity in seen:
            text = f"Duplicate value: {identity.decode()}"
            causes.append(Cause(f"{path}[{index}]", "FieldValueDuplicate", text))
        seen.add(identity)
    return causes


def _check_object(value: dict[str, Any], schema: Schema, path: str) -> list[Cause]:
    inside = f"{path}." if path else ""
    causes = [required(inside + name) for name in schema.get("required", ()) if name not in value]
    if len(value) < schema.get("minProperties", 0):
        causes.append(
            wrong(path, len(value), f"{path} in body should have at least {schema['minProperties']} properties")
        )
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        causes.append(too_many(path, len(value), schema["maxProperties"]))
    for name, item in value.items():
        inner = _property(schema, name)
        if inner is not None and (path or name != "metadata"):
            causes += validate(item, inner, inside + name)
    return causes


def _check_combinations(value: Any, schema: Schema, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for inner in schema.get("allOf", ()):
        causes += validate(value, inner, path)
    if causes:
        causes.append(_combination(path, "must validate all the schemas (allOf)"))
    for word, rule in (("anyOf", "at least one schema (anyOf)"), ("oneOf", "one and only one schema (oneOf)")):
        alternatives = [validate(value, inner, path) for inner in schema.get(word, ())]
        fitting = sum(not found for found in alternatives)
        if alternatives and not fitting:
            causes += [_combination(path, f"must validate {rule}"), *alternatives[0]]
        elif word == "oneOf" and fitting > 1:
            causes.append(_combination(path, f"must validate {rule}"))
    if "not" in schema and not validate(value, schema["not"], path):
        causes.append(_combination(path, "must not validate the schema (not)"))
    return causes


def _combination(path: str, rule: str) -> Cause:
    return wrong("<nil>", "", f'"{path}" {rule}')  # the API server names no field here
