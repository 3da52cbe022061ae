"""JSON objects as text: the same mapping, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import JSONS
from worker.model.values import Packed


@given(st.dictionaries(st.text(), JSONS))
def test_it_says_what_was_put_in(value: dict[str, Any]) -> None:
    packed = Packed(value)
    assert dict(packed) == value
    assert len(packed) == len(value)
    assert packed == value


def test_what_is_not_there_is_missing() -> None:
    packed = Packed({"a": [1]})
    assert packed.get("b") is None
    with pytest.raises(KeyError):
        packed["b"]


def test_what_is_done_to_a_value_that_was_read_stays_outside() -> None:
    packed = Packed({"a": [1]})
    packed["a"].append(2)
    assert packed["a"] == [1]
