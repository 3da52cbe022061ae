"""The oracle is worth something only if it notices mistakes. All of them: `make mutations`."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.mutations import MUTATIONS, Mutation, search_with, sources

QUICK = ("the intent is written after the create", "404 is taken for gone without a list", "the ledger keeps keys")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_one_of_the_code_as_it_is(mutation: Mutation) -> None:
    """A list that does not follow the code would prove nothing."""
    mutated = mutation.apply(sources())
    assert mutation.module in mutated
    for module, source in mutated.items():
        assert source != sources()[module]
        compile(source, module, "exec")


def test_every_invariant_that_code_can_break_is_broken() -> None:
    """tests/runs/ has more of I7 and I8, which are about many targets and namespaces: test_isolation, test_tenants."""
    broken = Counter(mutation.invariant for mutation in MUTATIONS)
    assert {"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"} == set(broken)
    assert broken.total() >= 45


@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name in QUICK], ids=lambda mutation: mutation.name)
def test_a_mistake_is_caught(mutation: Mutation) -> None:
    """By the search, which knows nothing of it."""
    assert search_with(mutation).violation is not None


def test_a_mutation_that_does_not_fit_is_an_error() -> None:
    """It names the module and the mutation to mend."""
    with pytest.raises(LookupError, match="mend the mutation 'none'"):
        Mutation("I1", "none", "model", "-no such line\n+another").apply({"model": "x = 1\n"})
