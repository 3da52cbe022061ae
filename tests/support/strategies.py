"""Values for property tests: any JSON, times around now."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support.builders import NOW, minutes

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


# --- reading a Secret --------------------------------------------------------------------------------------------

NO_TEXTS: list[object] = [None, "", 5, [], {}]


TIMES = st.integers(-5000, 5000).map(lambda n: NOW + minutes(n))
