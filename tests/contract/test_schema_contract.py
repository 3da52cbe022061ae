"""What structural schemas accept, refuse, drop and fill in, held against the sandbox and against a real API server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.conftest import Answer, Api

PROPERTIES: dict[str, Any] = {
    "count": {"type": "integer", "minimum": 2, "maximum": 5},
    "between": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True},
    "even": {"type": "integer", "multipleOf": 2},
    "word": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
    "digits": {"type": "string", "pattern": r"^\d+$"},
    "anywhere": {"type": "string", "pattern": "b"},
    "choice": {"type": "string", "enum": ["a", "b"]},
    "flag": {"type": "boolean"},
    "few": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    "keyed": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "size": {"type": "integer", "default": 1}},
        },
    },
    "map": {"type": "object", "minProperties": 1, "maxProperties": 2, "additionalProperties": {"type": "integer"}},
    "port": {"x-kubernetes-int-or-string": True},
    "nothing": {"type": "string", "nullable": True},
    "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "mixed": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"known": {"type": "object", "properties": {"x": {"type": "integer", "default": 7}}}},
    },
    "either": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "some": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        "not": {"required": ["a", "b"]},
    },
    "both": {"type": "integer", "allOf": [{"minimum": 2}, {"maximum": 3}]},
    "deep": {
        "type": "object",
        "default": {"inner": {}},
        "properties": {"inner": {"type": "object", "properties": {"x": {"type": "string", "default": "y"}}}},
    },
}
INVALID = "FieldValueInvalid"
MISTYPED = "FieldValueTypeInvalid"

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"count": 1}, "spec.count", INVALID),
    ({"count": 6}, "spec.count", INVALID),
    ({"count": "3"}, "spec.count", MISTYPED),
    ({"count": True}, "spec.count", MISTYPED),
    ({"between": 0}, "spec.between", INVALID),
    ({"between": 1}, "spec.between", INVALID),
    ({"even": 3}, "spec.even", INVALID),
    ({"word": "a"}, "spec.word", INVALID),
    ({"word": "abcde"}, "spec.word", "FieldValueTooLong"),
    ({"word": "ab\n"}, "spec.word", INVALID),
    ({"word": "ü" * 3}, "spec.word", INVALID),
    ({"digits": "٣"}, "spec.digits", INVALID),
    ({"anywhere": "xyz"}, "spec.anywhere", INVALID),
    ({"choice": "c"}, "spec.choice", "FieldValueNotSupported"),
    ({"flag": "true"}, "spec.flag", MISTYPED),
    ({"flag": 1}, "spec.flag", MISTYPED),
    ({"few": []}, "spec.few", INVALID),
    ({"few": ["a", "b", "c"]}, "spec.few", "FieldValueTooMany"),
    ({"few": ["a", 1]}, "spec.few[1]", MISTYPED),
    ({"few": {"a": 1}}, "spec.few", MISTYPED),
    ({"set": ["a", "a"]}, "spec.set[1]", "FieldValueDuplicate"),
    ({"keyed": [{"name": "a"}, {"name": "a"}]}, "spec.keyed[1]", "FieldValueDuplicate"),
    ({"keyed": [{"size": 1}]}, "spec.keyed[0].name", "FieldValueRequired"),
    ({"map": {}}, "spec.map", INVALID),
    ({"map": {"a": 1, "b": 2, "c": 3}}, "spec.map", "FieldValueTooMany"),
    ({"map": {"a": "x"}}, "spec.map.a", MISTYPED),
    ({"port": 1.5}, "spec.port", MISTYPED),
    ({"open": []}, "spec.open", MISTYPED),
]

COMBINED: list[tuple[dict[str, Any], set[tuple[str, str]]]] = [
    ({"either": {}}, {("<nil>", INVALID), ("spec.either.a", "FieldValueRequired")}),
    ({"either": {"a": "x", "b": "y"}}, {("<nil>", INVALID)}),
    ({"some": {}}, {("<nil>", INVALID), ("spec.some.a", "FieldValueRequired")}),
    ({"some": {"a": "x", "b": "y"}}, {("<nil>", INVALID)}),
    ({"both": 1}, {("<nil>", INVALID), ("spec.both", INVALID)}),
    ({"both": 4}, {("<nil>", INVALID), ("spec.both", INVALID)}),
]

ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"count": 2.0, "between": 0.5, "even": 0}, {"count": 2, "between": 0.5, "even": 0}),
    ({"word": "ab", "digits": "12", "anywhere": "abc"}, {"word": "ab", "digits": "12", "anywhere": "abc"}),
    ({"few": ["a", "a"], "set": ["a", "b"]}, {"few": ["a", "a"], "set": ["a", "b"]}),
    ({"keyed": [{"name": "a", "more": 1}]}, {"keyed": [{"name": "a", "size": 1}]}),
    ({"map": {"A_b": 1}}, {"map": {"A_b": 1}}),
    ({"port": 80, "nothing": None}, {"port": 80, "nothing": None}),
    ({"port": "http", "flag": None}, {"port": "http"}),
    ({"open": {"x": [{"y": None}]}}, {"open": {"x": [{"y": None}]}}),
    ({"mixed": {"known": {"z": 1}, "free": 1}}, {"mixed": {"known": {"x": 7}, "free": 1}}),
    ({"either": {"a": "x", "c": 1}, "some": {"b": "y"}}, {"either": {"a": "x"}, "some": {"b": "y"}}),
    ({"both": 2, "deep": {}}, {"both": 2, "deep": {}}),
    ({"deep": None}, {}),
    ({"deep": {"inner": {"x": None}}}, {"deep": {"inner": {"x": "y"}}}),
]


class Things:
    """Objects of a CRD that uses everything."""

    def __init__(self, api: Api, group: str) -> None:
        self._api = api
        self._group = group
        self._count = 0

    async def create(self, spec: dict[str, Any]) -> Answer:
        """Create one with this spec."""
        self._count += 1
        thing = {"apiVersion": f"{self._group}/v1", "kind": "Thing", "metadata": {"name": f"thing-{self._count}"}}
        path = f"/apis/{self._group}/v1/namespaces/{self._api.namespace}/things"
        return await self._api.call("POST", path, thing | {"spec": spec})


@pytest.fixture
async def things(api: Api) -> AsyncIterator[Things]:
    """The CRD, installed."""
    group = f"{api.namespace}.example"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": PROPERTIES}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "things", "singular": "thing", "kind": "Thing"}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    path = api.path("customresourcedefinitions", namespace="")
    answer = await api.call("POST", path, crd | {"metadata": {"name": f"things.{group}"}, "spec": spec})
    assert answer.status == 201, answer.body
    found = Things(api, group)

    async def served() -> bool:
        return (await found.create({})).status == 201

    await api.eventually(served)
    yield found
    await api.call("DELETE", f"{path}/things.{group}")


async def test_what_a_schema_refuses(things: Things) -> None:
    """422 for each, with the field and the reason; combinations of schemas are blamed on no field."""
    expected = [(spec, {(field, reason)}) for spec, field, reason in REFUSED] + COMBINED
    seen = []
    for spec, _ in expected:
        answer = await things.create(spec)
        assert answer.status == 422, spec
        seen.append((spec, {(cause["field"], cause["reason"]) for cause in answer.json()["details"]["causes"]}))
    assert seen == expected


async def test_what_a_schema_accepts(things: Things) -> None:
    """201 for each, with defaults filled in, unknown fields pruned, and nulls dropped that may not be."""
    for spec, expected in ACCEPTED:
        answer = await things.create(spec)
        assert answer.status == 201, (spec, json.loads(answer.body).get("message"))
        stored = answer.json()["spec"]
        if "deep" not in expected:
            assert stored.pop("deep") == {"inner": {"x": "y"}}
        assert stored == expected
