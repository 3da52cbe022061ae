"""The form of scopes, and what is wider than what."""

from __future__ import annotations

import pytest

from worker.model.scopes import Scopes, is_scope, is_wider, parse_scopes


@pytest.mark.parametrize("name", ["model.request", "api.all.read", "api.vector_stores.write", "all", "a" * 64])
def test_a_scope_has_the_form_of_openai_s(name: str) -> None:
    assert is_scope(name)
    assert parse_scopes(name) == (name,)


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "A.b", "a b", "a-b", "sk-proj-x", "a\n", "a*", "é", "a" * 65, "1a", None, 5]
)
def test_nothing_else_is_a_scope(name: object) -> None:
    """No key, and nothing that means more in a pattern or a log than itself."""
    assert not is_scope(name)


def test_a_list_is_the_same_in_any_order() -> None:
    assert parse_scopes("b.x, a.y,b.x ,\n c") == ("a.y", "b.x", "c")


@pytest.mark.parametrize("text", ["", " ", ",", "a,", ",a", "a,,b", "a;b", "a b", "*"])
def test_a_list_that_may_mean_everything_is_malformed(text: str) -> None:
    with pytest.raises(ValueError, match="one or more scopes"):
        parse_scopes(text)


@pytest.mark.parametrize(
    ("shown", "asked", "wider"),
    [
        (("a",), ("a",), False),
        (("a",), ("a", "b"), False),
        (("a", "b"), ("a",), True),
        (("c",), ("a", "b"), True),
        ((), ("a",), True),
        ((), (), False),
        (("a",), (), False),
    ],
)
def test_a_key_is_wider_if_it_may_do_anything_more(shown: Scopes, asked: Scopes, wider: bool) -> None:
    """No scopes are all of them; a key of which none were asked for cannot be too wide."""
    assert is_wider(shown, asked) is wider
