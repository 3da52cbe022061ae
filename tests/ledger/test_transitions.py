"""How an entry changes, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import (
    ACCESS,
    LEDGER,
    NOW,
    RUN,
    SECRET,
    account,
    empty_entry,
    entry,
    intent,
    minutes,
    naming,
    publication,
    target,
)
from worker.errors import Conflict, Deferred, RotatorError
from worker.ledger.catch_up import catch_up_with_secret
from worker.ledger.transitions import (
    LISTS_APART,
    UNKNOWN_FATE_PAUSE,
    failed,
    healthy,
    holds_intent,
    intended,
    last_tried,
    missed,
    postponed,
    published,
    released,
    scheduled,
    with_throttle,
)
from worker.model.entries import Account, Entry, Failures, Intent, Throttle, is_empty
from worker.model.targets import CleanupKind, CleanupPolicy


def names(entry: Entry) -> set[str]:
    return {p.account.name for p in entry.history} | {i.account.name for i in entry.unpublished}


# --- a rotation's steps ------------------------------------------------------------------------------------------


def test_an_intent_names_the_account_and_honours_the_requests() -> None:
    """Before anything is asked of OpenAI."""
    wanted = target(requests={"rotate": "2"})
    before = entry(honoured={"rotate": "1", "forceSync": "x"}, unpublished=(intent("old"),))
    after = intended(
        before, wanted, account("app_2", id=None), run=RUN, requested_at=NOW, claimed_until=NOW + minutes(3)
    )
    assert holds_intent(after, "app_2")
    assert holds_intent(after, "old")
    assert not holds_intent(after, "app_1")
    assert after.honoured == {"rotate": "2", "forceSync": "x"}
    assert after.generator.name == "gen"
    assert after.claimed_until(NOW) == NOW + minutes(3)


def test_an_intent_that_is_written_again_replaces_the_first() -> None:
    """One account, one intent, with the later claim."""
    once = intended(entry(), target(), account("app_2"), run=RUN, requested_at=NOW, claimed_until=NOW + minutes(3))
    twice = intended(
        once, target(), account("app_2"), run=RUN, requested_at=NOW + minutes(1), claimed_until=NOW + minutes(4)
    )
    assert [i.claimed_until for i in twice.unpublished] == [NOW + minutes(4)]


def test_publishing_supersedes_what_was_there() -> None:
    """From the moment of publication on; the interval counts from the start of the run."""
    before = entry(unpublished=(intent("app_2"), intent("lost")), failures=Failures(3, NOW))
    after = published(before, account("app_2"), NOW - minutes(1), at=NOW)
    assert [p.superseded_at for p in after.history] == [NOW, None]
    assert [i.account.name for i in after.unpublished] == ["lost"]
    assert (after.last_rotated_at, after.failures) == (NOW - minutes(1), Failures())


def test_publishing_what_is_published_already_changes_no_fact() -> None:
    """Another run may have noted it first, from the Secret."""
    first = published(empty_entry(unpublished=(intent("app_2"),)), account("app_2"), NOW, at=NOW)
    again = published(first, account("app_2"), NOW, at=NOW)
    assert again == first


def test_a_ledger_knows_since_when_it_has_keys() -> None:
    """Containers older than the first request carry nothing of ours."""
    asked = intent("app_1")
    first = published(empty_entry(unpublished=(asked,)), account("app_1"), NOW, at=NOW)
    second = published(replace(first, unpublished=(intent("app_2"),)), account("app_2"), NOW, at=NOW + minutes(5))
    assert first.since == second.since == asked.requested_at


@pytest.mark.parametrize(
    ("interval", "last", "due"),
    [(60, NOW, NOW + minutes(60)), (None, NOW, None), (60, None, None)],
)
def test_the_next_rotation_is_an_interval_after_the_last(
    interval: int | None, last: datetime | None, due: datetime | None
) -> None:
    """None where it rotates on request only, or has never rotated."""
    wanted = target(interval=minutes(interval) if interval else None)
    assert scheduled(entry(last_rotated_at=last), wanted).next_rotation_at == due


def test_the_generators_policy_is_noted_for_the_time_after_it() -> None:
    """Accounts outlive their generator."""
    policy = CleanupPolicy(CleanupKind.IDLE, minutes(1), minutes(2))
    wanted = target()
    after = scheduled(entry(), replace(wanted, generator=replace(wanted.generator, cleanup=policy)))
    assert after.generator.cleanup == policy


def test_a_definite_failure_ends_the_claim_and_keeps_the_account() -> None:
    """What was made is retired by the ledger, at once."""
    before = entry(unpublished=(intent("app_2"), intent("lost")))
    after = failed(before, intent("app_2"), account("app_2"), reason="Why", message="words", now=NOW)
    lost, ours = after.unpublished
    assert (ours.account, ours.claimed_until, ours.refused) == (account("app_2"), NOW, True)
    assert lost == before.unpublished[1]
    assert (after.failures.count, after.condition.ready) == (1, False)  # type: ignore[union-attr]


def test_a_failure_before_anything_was_made_keeps_the_intents_name() -> None:
    """The create's fate may be unknown: its name is all there is."""
    after = failed(entry(unpublished=(intent("app_2"),)), intent("app_2"), None, reason="Why", message="words", now=NOW)
    assert after.unpublished[0].account.name == "app_2"


@pytest.mark.parametrize("known", [None, account("app_2")])
def test_without_an_answer_the_claim_runs_on(known: Account | None) -> None:
    """It is never published where the create was not answered, for then nobody has its key."""
    before = intent("app_2", claimed_until=NOW + minutes(1))
    (after,) = failed(
        entry(unpublished=(before,)), before, known, reason="Why", message="words", now=NOW, definite=False
    ).unpublished
    assert (after.claimed_until, after.refused) == (before.claimed_until, known is None)
    assert after.account == (known or before.account)


@pytest.mark.parametrize("stored", [(), (intent("app_2", claimed_until=NOW, missed_at=NOW),)])
def test_a_run_that_was_stopped_too_long_records_its_account_again(stored: tuple[Intent, ...]) -> None:
    """Nobody lets it go until what it asked for so late must have happened; where it is known, it goes at once."""
    before = intent("app_2", claimed_until=NOW)
    (after,) = failed(
        entry(unpublished=stored), before, None, reason="Why", message="words", now=NOW, definite=False
    ).unpublished
    assert (after.account, after.claimed_until, after.missed_at) == (before.account, NOW + UNKNOWN_FATE_PAUSE, None)
    (after,) = failed(
        entry(unpublished=stored), before, account("app_2"), reason="Why", message="words", now=NOW
    ).unpublished
    assert (after.account, after.claimed_until, after.missed_at) == (account("app_2"), NOW, None)


def test_a_run_that_was_stopped_too_long_leaves_a_publication_alone() -> None:
    """Another run has found it in the Secret."""
    before = entry(publication("app_2", at=NOW))
    assert failed(before, intent("app_2"), None, reason="Why", message="words", now=NOW) == before


def test_a_failure_counts_only_until_another_run_has_published() -> None:
    """What failed so late was served meanwhile: no retry."""
    before = entry(publication("app_3", at=NOW - minutes(1)))
    after = failed(before, intent("app_2", claimed_until=NOW), None, reason="Why", message="words", now=NOW)
    assert (after.failures, after.condition) == (before.failures, before.condition)
    assert [left.account.name for left in after.unpublished] == ["app_2"]


def test_attempts_back_off_from_a_minute_to_an_hour() -> None:
    """However long it goes on."""
    state, waits = entry(), []
    for _ in range(2000):
        state = postponed(state, "Why", "words", now=NOW)
        waits.append((state.failures.next_attempt_at - NOW) / minutes(1))  # type: ignore[operator]
    assert waits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert waits[-1] == 60


def test_an_attempt_is_put_off_for_as_long_as_openai_asks() -> None:
    """And what it asked for is noted, until a key has been made."""
    told_so = Throttle("https://api.openai.com/v1", "0123", NOW + minutes(90), 1)
    error = Deferred("OpenAIThrottled", "words", until=told_so.until, throttle=told_so)
    after = postponed(with_throttle(entry(), error), error.reason, error.message, now=NOW)
    assert (after.throttle, after.failures.next_attempt_at) == (told_so, NOW + minutes(90))
    assert published(after, account("app_2"), NOW, at=NOW).throttle is None


@pytest.mark.parametrize("error", [None, Conflict("R", "w"), Deferred("R", "w", until=NOW)])
def test_who_was_not_asked_notes_nothing(error: RotatorError | None) -> None:
    """It is another target's note."""
    assert with_throttle(entry(), error) == entry()


def test_who_was_tried_last_is_known() -> None:
    """A failed attempt counts as one; who has never been tried comes first."""
    failed_since = replace(entry(), failures=Failures(1, NOW))
    assert last_tried(empty_entry()) < last_tried(entry()) < last_tried(failed_since)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    """As Kubernetes has it: the transition, not the last word."""
    once = postponed(entry(), "Why", "words", now=NOW)
    twice = postponed(once, "Other", "other words", now=NOW + minutes(5))
    well = healthy(twice, NOW + minutes(9))
    assert [e.condition.since for e in (once, twice, well)] == [NOW, NOW, NOW + minutes(9)]  # type: ignore[union-attr]
    assert well.condition.ready  # type: ignore[union-attr]
    assert healthy(well, NOW + minutes(99)) == well


def test_a_target_without_a_key_is_not_called_healthy() -> None:
    """There is nothing to be ready."""
    assert healthy(empty_entry(), NOW).condition is None


# --- lost creates ------------------------------------------------------------------------------------------------


def test_two_complete_lists_apart_let_a_lost_intent_go() -> None:
    """One list may be older than the account."""
    state = entry(unpublished=(intent("lost"), intent("other")))
    state = missed(state, "lost", NOW)
    assert holds_intent(state, "lost")
    state = missed(state, "lost", NOW + LISTS_APART - timedelta(seconds=1))
    assert holds_intent(state, "lost")
    state = missed(state, "lost", NOW + LISTS_APART)
    assert not holds_intent(state, "lost")
    assert holds_intent(state, "other")


def test_releasing_takes_away_those_accounts_and_no_others() -> None:
    """Published or not."""
    before = entry(publication("a"), publication("b"), unpublished=(intent("c"), intent("d")))
    assert names(released(before, {"a", "c", "unknown"})) == {"b", "d"}
    assert is_empty(released(before, {"a", "b", "c", "d"}))
    assert released(before, ()) == before


# --- whatever happens --------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
Step = Callable[[Entry, datetime], Entry]


def made(name: str) -> Account:
    return Account(name, ACCESS, f"user-{name}", f"key_{name}")


def asked(name: str, now: datetime) -> Intent:
    return Intent(Account(name, ACCESS), now - minutes(1), now + minutes(2))


def steps() -> st.SearchStrategy[tuple[str, Step]]:
    """Any operation but the two that let an account go."""

    def step(what: str, name: str) -> tuple[str, Step]:
        def intend(entry: Entry, now: datetime) -> Entry:
            if name in names(entry):
                return entry  # names are random: none is used twice
            return intended(
                entry, target(), Account(name, ACCESS), run=RUN, requested_at=now, claimed_until=now + minutes(3)
            )

        def publish(entry: Entry, now: datetime) -> Entry:
            return published(entry, made(name), now, at=now) if name in names(entry) else entry

        does: dict[str, Step] = {
            "intend": intend,
            "publish": publish,
            "fail": lambda entry, now: failed(
                entry, asked(name, now), made(name), reason="Why", message="words", now=now
            ),
            "no answer": lambda entry, now: failed(
                entry, asked(name, now), None, reason="Why", message="words", now=now, definite=False
            ),
            "postpone": lambda entry, now: postponed(entry, "Why", "words", now=now),
            "secret gone": lambda entry, now: catch_up_with_secret(entry, None, None, now=now),
            "secret names": lambda entry, now: catch_up_with_secret(entry, naming(name), name, now=now),
            "secret names late": lambda entry, now: catch_up_with_secret(
                entry, naming(name), name, now=now + minutes(9)
            ),
            "forged": lambda entry, now: catch_up_with_secret(entry, naming(name, id="user-forged"), None, now=now),
            "schedule": lambda entry, now: scheduled(entry, target()),
            "healthy": healthy,
        }
        return f"{what} {name}", does[what]

    kinds = ["intend", "publish", "fail", "no answer", "postpone", "schedule", "healthy", "forged"]
    kinds += ["secret gone", "secret names", "secret names late"]
    return st.builds(step, st.sampled_from(kinds), st.sampled_from(NAMES))


@settings(max_examples=300)
@given(st.lists(steps(), max_size=25))
def test_whatever_happens_no_account_is_lost_and_one_at_most_is_current(sequence: list[tuple[str, Step]]) -> None:
    """Only `released` and `missed` let an account go; nobody is in two places; a superseding time never moves."""
    state, now = Entry(SECRET, LEDGER), NOW
    for _, step in sequence:
        now += minutes(1)
        before, state = state, step(state, now)
        assert names(before) <= names(state)
        assert len(names(state)) == len(state.history) + len(state.unpublished)
        assert sum(p.superseded_at is None for p in state.history) <= 1
        for old in before.history:
            new = next(p for p in state.history if p.account.name == old.account.name)
            assert new.superseded_at in (None, old.superseded_at or now, now + minutes(9))


def test_what_is_due_while_attempts_are_put_off_comes_with_the_next_attempt() -> None:
    """The column Next of `kubectl get keyrotations` says when something will really be tried."""
    after = postponed(entry(next_rotation_at=NOW), "Why", "words", now=NOW)
    assert after.next_rotation_at == after.failures.next_attempt_at == NOW + minutes(1)
    assert scheduled(after, target()).next_rotation_at == NOW + minutes(30), "the interval ends later still"
    assert postponed(empty_entry(), "Why", "words", now=NOW).next_rotation_at == NOW + minutes(1)
