"""What is read from `spec.target.template`, held to what Go's text/template makes of it, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.scene import ROOT
from worker.kubernetes.fields import Mistake
from worker.kubernetes.template import MOST_DATA_KEYS, pieces_of, template_of
from worker.model.names import DATA_KEY
from worker.model.templates import KEY_ALONE

RECORDED: list[list[Any]] = json.loads((ROOT / "tests" / "data" / "go-templates.json").read_text())
"""Texts, and what Go 1.26's text/template made of them with `api_key: sk-K` and `missingkey=error`; null: it refused.

External Secrets Operator's engine v2 is that, with functions more. Text with nothing but keys: `text/template` has it.
"""


def refused(text: str, variable: str = "api_key") -> str:
    with pytest.raises(Mistake) as error:
        pieces_of(text, variable, "here")
    assert error.value.reason == "UnsupportedField"
    return str(error.value)


@pytest.mark.parametrize(("text", "made"), RECORDED)
def test_a_text_becomes_what_go_makes_of_it(text: str, made: str | None) -> None:
    try:
        mine = "sk-K".join(pieces_of(text, "api_key", "here"))
    except Mistake:
        mine = None
    assert mine is None or mine == made


def test_all_that_has_only_the_key_is_honoured() -> None:
    """What Go takes and the worker refuses are other words of its language, each in this list."""
    others = ['"x"', "/*", "index", "if", "$.api_key", "(.api_key)", "{{ . }}"]
    for text, made in RECORDED:
        if made is not None and not any(word in text for word in others):
            assert "sk-K".join(pieces_of(text, "api_key", "here")) == made


@given(st.lists(st.text(st.characters(blacklist_characters="{", blacklist_categories=["Cs"])), min_size=1))
def test_text_around_the_key_stays_as_it_is(pieces: list[str]) -> None:
    assert pieces_of("{{ .api_key }}".join(pieces), "api_key", "here") == tuple(pieces)


@pytest.mark.parametrize(
    ("action", "word"),
    [
        ("{{ .api_key | quote }}", "quote"),
        ("{{ .api_key|b64enc|quote }}", "b64enc"),
        ('{{ printf "Bearer %s" .api_key }}', "printf"),
        ('{{ index . "api_key" }}', "index"),
        ("{{ .other }}", ".other"),
        ("{{ .api_key.x }}", ".api_key.x"),
        ("{{ $.api_key }}", "$.api_key"),
        ("{{- if .api_key }}", "if"),
        ("{{ toYaml . }}", "toYaml"),
        ("{{-.api_key}}", "-.api_key"),
        ("{{{ .api_key }}", "{"),
    ],
)
def test_the_first_word_that_is_not_honoured_is_told_with_its_line(action: str, word: str) -> None:
    message = refused(f"one\ntwo {{{{ .api_key }}}}\n\nfour {action}")
    assert message.startswith(f"here, line 4, has {word!r} in braces: ")


@pytest.mark.parametrize("action", ['{{ "hunter2" }}', "{{ `hunter2` }}", "{{/* hunter2 */}}", "{{ .api_key 'hunter2"])
def test_quoted_text_and_comments_are_not_told(action: str) -> None:
    """Somebody may have put a password there."""
    assert "hunter2" not in refused(action)


@pytest.mark.parametrize("text", ["{{", "{{ .api_key", "x {{ .api_key }"])
def test_braces_that_are_not_closed_are_told(text: str) -> None:
    assert refused(text).startswith("here, line 1, has braces that are not closed")


def test_a_long_word_is_cut() -> None:
    assert len(refused("{{ " + "x" * 60_000 + " }}")) < 200


@pytest.mark.parametrize("variable", ["openai-key", "openai.key", "1key", "-"])
def test_a_data_key_that_no_template_can_name_is_told(variable: str) -> None:
    """Go takes `.a-b` for `.a` and a mistake, and `.a.b` for the field of a field."""
    assert DATA_KEY.match(variable)
    assert repr(variable) in refused(f"{{{{ .{variable} }}}}", variable)
    assert pieces_of("text", variable, "here") == ("text",)


def test_a_renamed_data_key_is_named_by_its_new_name() -> None:
    assert pieces_of("k={{ .OPENAI_API_KEY }}", "OPENAI_API_KEY", "here") == ("k=", "")
    assert "'.api_key'" in refused("k={{ .api_key }}", "OPENAI_API_KEY")


# --- the whole template ------------------------------------------------------------------------------------------

KEY = {"a": "{{ .api_key }}"}


def values(**template: object) -> dict[str, tuple[str, ...]]:
    found = template_of(template, "api_key")
    assert found is not None
    return dict(found.values)


@pytest.mark.parametrize("nothing", [{}, {"data": {}}, {"data": None}, {"engineVersion": "v1", "mergePolicy": "x"}])
def test_without_data_there_is_no_template(nothing: dict[str, object]) -> None:
    assert template_of(nothing, "api_key") is None


@pytest.mark.parametrize("fields", [{}, {"engineVersion": "v2"}, {"mergePolicy": "Replace"}, {"mergePolicy": None}])
def test_the_template_replaces_the_generated_data(fields: dict[str, object]) -> None:
    assert values(data=KEY | {"b": "x"}, **fields) == {"a": KEY_ALONE, "b": ("x",)}


def test_with_merge_the_generated_data_stays() -> None:
    assert values(data={"b": "x"}, mergePolicy="Merge") == {"api_key": KEY_ALONE, "b": ("x",)}
    assert values(data={"api_key": "x{{.api_key}}"}, mergePolicy="Merge") == {"api_key": ("x", "")}


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"data": KEY, "engineVersion": "v1"}, "spec.target.template.engineVersion"),
        ({"data": KEY, "engineVersion": "v3"}, "spec.target.template.engineVersion"),
        ({"data": KEY, "mergePolicy": "merge"}, "spec.target.template.mergePolicy"),
        ({"data": True}, "spec.target.template.data is larger than 64 kB"),
        ({"data": {f"k{i}": "{{ .api_key }}" for i in range(MOST_DATA_KEYS + 1)}}, "more than 50 data keys"),
        ({"data": {"a": "text"}}, "with mergePolicy Replace the key would be nowhere"),
        ({"data": {"api_key": "text"}, "mergePolicy": "Merge"}, "with mergePolicy Merge the key would be nowhere"),
        ({"data": KEY | {"b/c": "x"}}, "spec.target.template.data['b/c']"),
        ({"data": KEY | {".": "x"}}, "spec.target.template.data['.']"),
        ({"data": KEY | {"..data": "x"}}, "spec.target.template.data['..data']"),
        ({"data": KEY | {"b": 5}}, "spec.target.template.data['b'] must be a text"),
        ({"data": KEY | {"b": "\ud800"}}, "spec.target.template.data['b'] must be a text"),
    ],
)
def test_what_is_not_honoured_is_named(template: dict[str, object], named: str) -> None:
    with pytest.raises(Mistake) as error:
        template_of(template, "api_key")
    assert named in str(error.value)
    assert len(str(error.value)) < 300
