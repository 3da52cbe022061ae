"""Values with a key in them, and what is kept of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import KEY
from worker.model.hidden import Hidden
from worker.model.templates import KEY_ALONE, Placed, Template, size_of

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
KEYS = st.text("abcXYZ019-_", min_size=1, max_size=40)


@given(st.lists(TEXTS, min_size=2, max_size=4), KEYS)
def test_the_key_is_found_again_where_it_was_put(pieces: list[str], key: str) -> None:
    """Also between letters that a key could have."""
    template, hidden = Template({"file": tuple(pieces)}), Hidden(key)
    kept = template.rendered(hidden).values["file"]
    text = hidden.between(pieces)
    assert kept == Placed(len(pieces[0]), text.digest())
    assert kept.at is not None
    found = text.part(kept.at, hidden.digest())
    assert found is not None
    assert found.reveal() == key


@pytest.mark.parametrize(("text", "at"), [("x" + KEY, 0), (KEY, 1), ("", 0), ("short", 99), (" " + KEY, 0)])
def test_elsewhere_it_is_not_found(text: str, at: int) -> None:
    assert Hidden(text).part(at, Hidden(KEY).digest()) is None


def test_a_long_word_around_the_key_costs_no_time() -> None:
    """The worker looks no further than a key may be long."""
    text = Hidden(KEY + "x" * 1_000_000)
    assert text.part(0, Hidden(KEY).digest()) is not None
    assert text.part(0, Hidden(KEY + "x" * 2000).digest()) is None


def test_a_key_alone_has_the_digest_of_the_key() -> None:
    """So ledgers say the same of a template that has the key alone."""
    kept = Template({"k": KEY_ALONE}).rendered(Hidden(KEY)).values["k"]
    assert kept == Placed(0, Hidden(KEY).digest())


def test_before_the_key_is_made_texts_alone_have_a_digest() -> None:
    kept = Template({"a": ("x", "y"), "b": ("text",)}).rendered(None)
    assert kept.values == {"a": Placed(1, None), "b": Placed(None, Hidden("text").digest())}
    assert kept.key_places() == {"a": 1}


def test_every_part_of_a_template_is_in_its_digest() -> None:
    templates: list[dict[str, tuple[str, ...]]] = [
        {"a": ("x", "y")}, {"a": ("xy",)}, {"a": ("", "xy")}, {"a": ("x", "", "y")}, {"b": ("x", "y")},
        {"a": ("x", "y"), "b": ("",)},
    ]  # fmt: skip
    assert len({Template(values).digest for values in templates}) == len(templates)
    assert Template({"a": ("x", "y"), "b": ("",)}).digest == Template({"b": ("",), "a": ("x", "y")}).digest


def test_a_templates_size_is_in_bytes_with_room_for_each_key() -> None:
    assert size_of(("ä",)) == 2
    assert size_of(("ä", "b", "")) == 3 + 2 * 256


@pytest.mark.parametrize("value", ["sk-svcacct-aZ09_-", "a", "x" * 1024])
def test_a_plain_key(value: str) -> None:
    assert Hidden(value).is_plain()


@pytest.mark.parametrize("value", ["", "a b", "a\n", "a'", "ä", "a.b", "a/b", "a+b", "x" * 1025])
def test_no_plain_key(value: str) -> None:
    assert not Hidden(value).is_plain()
