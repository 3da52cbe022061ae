"""What the Secret says becomes part of the entry."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.builders import NOW, account, entry, intent, minutes, naming, publication, secret_view
from worker.ledger.catch_up import catch_up_with_secret
from worker.model.entries import current
from worker.model.sightings import SecretView


def test_a_published_key_that_nobody_recorded_is_recorded_now() -> None:
    """A run died between its two writes: the intent becomes a publication, the account before it is superseded."""
    asked = intent("app_2", NOW - minutes(1))
    seen = catch_up_with_secret(entry(unpublished=(asked,)), naming("app_2"), "app_2", now=NOW)
    newest = current(seen)
    assert newest is not None
    assert newest.account == account("app_2")
    assert (newest.at, newest.requested_at) == (NOW, asked.requested_at)
    assert seen.history[0].superseded_at == NOW
    assert seen.unpublished == ()
    assert seen.last_rotated_at == asked.requested_at


def test_an_intent_whose_run_may_be_at_it_is_left_to_it() -> None:
    """It notes its publication itself."""
    before = entry(unpublished=(intent("app_2", NOW + timedelta(seconds=1)),))
    assert catch_up_with_secret(before, naming("app_2"), "app_2", now=NOW) == before


@pytest.mark.parametrize("at_openai", [None, "app_1", "another"])
def test_a_forged_id_does_not_make_an_intent_a_publication(at_openai: str | None) -> None:
    """OpenAI must know the id by the intent's name."""
    before = entry(unpublished=(intent("app_2", NOW),))
    assert catch_up_with_secret(before, naming("app_2", id="user-forged"), at_openai, now=NOW) == before


def test_an_id_that_the_ledger_knows_needs_no_word_from_openai() -> None:
    """It was noted with the failed attempt."""
    before = entry(unpublished=(intent("app_2", NOW, account=account("app_2")),))
    assert current(catch_up_with_secret(before, naming("app_2"), None, now=NOW)).account.name == "app_2"  # type: ignore[union-attr]
    assert catch_up_with_secret(before, naming("app_2", id="user-other"), "app_2", now=NOW) == before


def test_an_expiry_that_nobody_recorded_is_taken_from_the_annotation() -> None:
    """Otherwise a key with a lifetime whose run died would be left to expire."""
    expiry = NOW + timedelta(hours=5)
    seen = catch_up_with_secret(
        entry(unpublished=(intent("app_2", NOW),)), naming("app_2", expires_at=expiry), "app_2", now=NOW
    )
    assert current(seen).account.expires_at == expiry  # type: ignore[union-attr]


def test_a_secret_that_was_put_back_makes_the_earlier_account_current() -> None:
    """A rollback by GitOps: the key that is in the Secret must not be deleted."""
    before = entry(publication("app_1", superseded_at=NOW - minutes(9)), publication("app_2", NOW - minutes(9)))
    seen = catch_up_with_secret(before, naming("app_1"), None, now=NOW)
    assert current(seen).account.name == "app_1"  # type: ignore[union-attr]
    assert {p.account.name: p.superseded_at for p in seen.history} == {"app_1": None, "app_2": NOW}


def test_a_deleted_secret_supersedes_every_account() -> None:
    """From now on; what was superseded earlier keeps its time."""
    earlier = NOW - minutes(9)
    seen = catch_up_with_secret(
        entry(publication("app_1", superseded_at=earlier), publication("app_2")), None, None, now=NOW
    )
    assert [p.superseded_at for p in seen.history] == [earlier, NOW]
    assert current(seen) is None


@pytest.mark.parametrize(
    "secret",
    [
        secret_view(named=None),
        naming("app_2", ledger="another"),
        naming("app_2", target="default/another"),
        naming("app_2", target="other/creds"),
        naming("unknown"),
        naming("app_1", id="user-other"),
        naming("app_1"),
    ],
)
def test_nothing_is_learned_from_an_annotation_of_something_else(secret: SecretView) -> None:
    """No annotation, another installation's, a copy's, an unknown account's, a forged id, or what is known already."""
    before = entry(unpublished=(intent("app_2", NOW),))
    assert catch_up_with_secret(before, secret, "app_2", now=NOW) == before
