"""What may be taken into the ledger, from plain values."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.builders import (
    ACCESS,
    LEDGER,
    NOW,
    PROJECT,
    SECRET,
    account,
    empty_entry,
    entry,
    generator,
    intent,
    minutes,
    named,
    publication,
    secret_view,
    source,
    target,
)
from worker.commands.adopt.evidence import BY_HAND, Case, Census, Claim, Facts, annotated, claims_of
from worker.commands.adopt.generator_state import GeneratorState, generator_state
from worker.commands.adopt.judge import Adoption, Verdict, judge, unrecorded
from worker.errors import RotatorError, Unanswered
from worker.kubernetes.secret import CURRENT, OPERATOR_LABELS, PREVIOUS
from worker.ledger.catch_up import unaccounted
from worker.ledger.transitions import adopted
from worker.model.entries import Entry, Unreadable, current
from worker.model.sightings import AccountKey, ListedAccount, Listing
from worker.model.targets import Project
from worker.model.values import Ref

NAME, ID = "app_0123456789", "user-1"
OTHER = Ref("team", "other")
MADE = NOW - timedelta(hours=5)


def facts(*more: tuple[str, str], keys: int = 1, **changes: Any) -> Facts:
    """OpenAI has the account, with one key; and these others."""
    accounts = {ID: NAME} | dict(more)
    values: dict[str, Any] = {
        "names": {ID: NAME},
        "listing": Listing.of(NOW, {id: ListedAccount(name) for id, name in accounts.items()}),
        "keys": {ID: tuple(AccountKey(f"key_{i}", ID, MADE) for i in range(keys))},
    }
    return Facts(**(values | changes))


def claim(**changes: Any) -> Claim:
    values: dict[str, Any] = {"id": ID, "name": NAME, "current": True, "named": named(account(NAME, id=ID))}
    return Claim("named by the Secret's annotation", **(values | changes))


def case(*claims: Claim, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "target": target(),
        "secret": secret_view(digests={"api_key": "d1"}),
        "claims": claims or (claim(),),
        "facts": facts(),
    }
    return Case(SECRET, **(values | changes))


def judged(what: Case, *others: Case | Entry) -> Adoption:
    cases = [what, *(other for other in others if isinstance(other, Case))]
    entries = [e for e in (what.entry, *others) if isinstance(e, Entry)]
    return judge(what, Census.of(cases, entries), LEDGER, now=NOW)


def test_a_confirmed_account_becomes_the_current_one() -> None:
    """With the key that the Secret has, the id that OpenAI has for it, and since when containers may hold it."""
    published = NOW - minutes(40)
    claimed = claim(named=named(account(NAME, id=ID, key_id="key_forged"), published_at=published))
    adoption = judged(case(claimed, target=target(requests={"rotate": "1"})))
    assert [finding.verdict for finding in adoption.findings] == [Verdict.RECORD]
    after = adoption.after
    assert after is not None
    (found,) = after.history
    assert found.superseded_at is None
    access = replace(ACCESS, fallback=False)
    assert found.account == account(NAME, id=ID, key_id="key_0", key_digest="d1", data_key="api_key", access=access)
    assert (found.at, found.requested_at) == (published, MADE)
    assert (after.ledger, after.last_rotated_at, after.honoured) == (LEDGER, published, {"rotate": "1"})
    assert after.next_rotation_at == published + timedelta(hours=1)
    assert after.condition is not None
    assert after.condition.ready


@pytest.mark.parametrize("published", [None, NOW + timedelta(days=9), MADE - timedelta(days=9)])
def test_a_forged_time_of_publication_is_put_right(published: Any) -> None:
    """Neither before the key was made nor in the future."""
    after = judged(case(claim(named=named(account(NAME, id=ID), published_at=published)))).after
    assert after is not None
    assert MADE <= after.history[0].at <= NOW


def test_an_account_without_a_key_has_nothing_to_hold() -> None:
    """Its key has ended: it is recorded without one, to be deleted."""
    after = judged(case(claim(current=False, named=None), facts=facts(keys=0))).after
    assert after is not None
    (found,) = after.history
    assert (found.account.key_id, found.account.key_digest, found.superseded_at) == (None, None, NOW)
    assert after.condition is not None
    assert after.condition.reason == "Adopted"


RECORDED = entry(publication(NAME, account=account(NAME, id=ID)))
REFUSED: list[tuple[str, Case, tuple[Case | Entry, ...], str]] = [
    ("evidence refused as it stands", case(claim(problem=("CopiedSecret", "words"))), (), "CopiedSecret"),
    ("OpenAI away", case(facts=Unanswered("Away", "words")), (), "Away"),
    ("OpenAI not asked", case(facts=None), (), ""),
    ("another name at OpenAI", case(facts=facts(names={ID: "app_9999999999"})), (), "UnknownAccount"),
    ("name recorded with another id", case(entry=entry(publication(NAME))), (), "UnknownAccount"),
    ("annotation changed alone",
     case(entry=entry(publication(account=account(key_digest="d1")))), (), "UnknownAccount"),
    ("recorded for another target", case(), (replace(RECORDED, target=OTHER),), "NamedTwice"),
    ("requested for another target", case(),
     (empty_entry(target=OTHER, unpublished=(intent(NAME),)),), "NamedTwice"),
    ("named by another target", case(), (replace(case(), ref=OTHER),), "NamedTwice"),
    ("a name of several accounts", case(facts=facts(("user-2", NAME))), (), "NamedTwice"),
    ("a name of another form", case(target=target(generator=generator(name_size=11))), (), "AnotherName"),
    ("two keys", case(facts=facts(keys=2)), (), "SeveralKeys"),
    ("edited entry", case(entry=Unreadable("default.creds", "words")), (), "LedgerUnreadable"),
    ("running claim", case(entry=empty_entry(unpublished=(intent("app_x"),))), (), "InProgress"),
    ("trouble", case(trouble=("Forbidden", "words")), (), "Forbidden"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "others", "reason"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_is_not_proven_is_refused(what: Case, others: tuple[Case | Entry, ...], reason: str) -> None:
    """And nothing is recorded."""
    adoption = judged(what, *others)
    assert [(finding.verdict, finding.reason) for finding in adoption.findings] == [(Verdict.REFUSED, reason)]
    assert adoption.after is None


def test_what_is_recorded_already_needs_no_confirmation() -> None:
    """OpenAI may be away."""
    adoption = judged(case(entry=RECORDED, facts=Unanswered("Away", "words")))
    assert [finding.verdict for finding in adoption.findings] == [Verdict.KNOWN]
    assert adoption.after is None


def test_a_copy_does_not_hinder_the_original() -> None:
    """Its annotation names another target, so it does not claim the account for its own."""
    copy = replace(case(claim(problem=("CopiedSecret", "words"))), ref=OTHER)
    assert judged(case(), copy).findings[0].verdict is Verdict.RECORD


def test_what_openai_does_not_have_is_not_recorded() -> None:
    adoption = judged(case(facts=facts(names={ID: None})))
    assert [finding.verdict for finding in adoption.findings] == [Verdict.GONE]
    assert adoption.after is None


def test_an_intent_that_is_in_the_secret_becomes_a_publication() -> None:
    """Its run died before it could note it, and the entry is an older ledger's."""
    asked = intent(NAME, NOW - minutes(1), requested_at=NOW - minutes(9))
    after = judged(case(entry=empty_entry(unpublished=(asked,)))).after
    assert after is not None
    assert after.unpublished == ()
    assert [p.account.name for p in after.history] == [NAME]


FOREIGN = entry(ledger="another")


def test_another_ledgers_entry_is_taken_over_as_it_is() -> None:
    """Also where nothing asks for its target any more; an account that is gone stays for a run to let go."""
    for recorded in ({"user-app_1": "app_1"}, {"user-app_1": None}):
        adoption = judged(Case(SECRET, entry=FOREIGN, recorded=recorded))
        assert [finding.verdict for finding in adoption.findings] == [Verdict.RECORD]
        assert adoption.after is not None
        assert (adoption.after.ledger, adoption.after.history) == (LEDGER, FOREIGN.history)


@pytest.mark.parametrize(
    ("recorded", "others", "reason"),
    [
        ({"user-app_1": "another"}, (), "UnknownAccount"),
        (Unanswered("Away", "words"), (), "Away"),
        ({"user-app_1": "app_1"}, (entry(target=OTHER),), "NamedTwice"),
    ],
)
def test_another_ledgers_entry_that_is_not_confirmed_stays_whole(
    recorded: dict[str, str | None] | RotatorError, others: tuple[Entry, ...], reason: str
) -> None:
    """What else is named for its target is not recorded either."""
    adoption = judged(case(entry=FOREIGN, recorded=recorded), *others)
    assert [finding.reason for finding in adoption.findings] == [reason, "ForeignLedger"]
    assert adoption.after is None


# --- evidence


def test_the_annotations_name_the_current_account_and_the_previous_ones() -> None:
    secret = secret_view(annotations={PREVIOUS: '[{"id": "user-0", "name": "app_0"}]'})
    claims = claims_of(target(), secret, (), by_hand=("user-app_1", "user-9"))
    assert [(c.id, c.name, c.current) for c in claims] == [
        ("user-app_1", "app_1", True),
        ("user-0", "app_0", False),
        ("user-9", None, False),
    ]
    assert claims[-1].evidence == BY_HAND


def state(name: str = "gen-1", **changes: Any) -> GeneratorState:
    values: dict[str, Any] = {
        "ref": Ref("default", name),
        "made_at": NOW,
        "owners": frozenset({"source-uid"}),
        "latest": True,
        "account_id": "user-1",
        "project": PROJECT,
    }
    return GeneratorState(**(values | changes))


def test_the_newest_state_without_a_deadline_is_in_the_secret() -> None:
    """Where neither an annotation of ours nor the Secret's absence says otherwise."""
    states = [
        state("a", account_id="user-a", made_at=NOW - minutes(2)),
        state("b", account_id="user-b", made_at=NOW - minutes(1)),
        state("c", account_id="user-c", latest=False),
        state("d", owners=frozenset({"another"})),
        state("e", ref=Ref("team", "e")),
    ]
    unnamed = secret_view(named=None)
    assert [(c.id, c.current) for c in claims_of(target(), unnamed, states, by_hand=())] == [
        ("user-a", False),
        ("user-b", True),
        ("user-c", False),
    ]
    for secret in (None, secret_view()):
        assert not any(c.current for c in claims_of(target(), secret, states, by_hand=()) if c.named is None)


@pytest.mark.parametrize(
    "changes", [{"account_id": None}, {"project": None}, {"project": Project(PROJECT.host, "another")}]
)
def test_a_state_that_is_not_about_this_project_is_refused(changes: dict[str, Any]) -> None:
    (claimed,) = claims_of(target(), None, [state(**changes)], by_hand=())
    assert claimed.problem is not None
    assert claimed.problem[0] == "InvalidEvidence"


STATE: dict[str, Any] = {
    "metadata": {"namespace": "default", "name": "gen-1", "creationTimestamp": "2026-11-24T10:00:00Z"},
    "spec": {
        "resource": {
            "apiVersion": "generators.external-secrets.io/v1alpha1",
            "kind": "OpenAI",
            "spec": {"projectId": "proj_1"},
        },
        "state": {"serviceAccountId": "user-1", "apiKeyId": "key_1"},
    },
}


def test_a_generator_state_is_read_as_the_operator_wrote_it() -> None:
    """The host has the generator's default; another generator's is none."""
    assert generator_state(STATE) == state(owners=frozenset())
    superseded = STATE | {"spec": STATE["spec"] | {"garbageCollectionDeadline": "2026-11-24T10:02:00Z"}}
    assert generator_state(superseded) == state(owners=frozenset(), latest=False)
    going = STATE | {"metadata": STATE["metadata"] | {"deletionTimestamp": "2026-11-24T10:02:00Z"}}
    assert generator_state(going) == state(owners=frozenset(), latest=False)
    for resource in ({"kind": "OpenAI", "apiVersion": "v1"}, {"kind": "Password"}, None, "x"):
        assert generator_state(STATE | {"spec": STATE["spec"] | {"resource": resource}}) is None


@pytest.mark.parametrize(
    ("prefix", "size", "name", "expected"),
    [
        ("app", 10, "app_0123456789", True),
        ("app", 10, "app_01234_6-89", True),
        ("app", 10, "app_012345678", False),
        ("app", 10, "app_01234567890", False),
        ("app", 10, "apx_0123456789", False),
        ("app", 10, "app_012345678\n", False),
        ("a.p", 10, "app_0123456789", False),
        ("", 12, "0123456789ab", True),
        ("", 12, "production-backend", False),
    ],
)
def test_a_name_has_the_generators_form_or_not(prefix: str, size: int, name: str, expected: bool) -> None:
    assert generator(name_prefix=prefix, name_size=size).gives(name) is expected


# --- the rest


def test_what_nothing_names_is_listed_once() -> None:
    """For the first of the targets that it may belong to; what has another form is nobody's business."""
    listed = facts(("user-2", "app_abcdefghij"), ("user-3", "production"), ("user-4", "app_recorded00"))
    recorded = empty_entry(target=OTHER, unpublished=(intent("app_recorded00"),))
    cases = [case(facts=listed), replace(case(facts=listed), ref=OTHER), case(facts=None)]
    found = unrecorded(cases, Census.of(cases, [recorded]))
    assert [(f.target, f.id, f.verdict) for f in found] == [(SECRET, "user-2", Verdict.UNRECORDED)]
    assert "default/creds, team/other" in found[0].message
    assert "adopt default/creds" not in found[0].message, "two targets fit: none is suggested"
    (alone,) = unrecorded(cases[:1], Census.of(cases, [recorded]))
    assert "adopt default/creds --account user-2" in alone.message
    (asked,) = unrecorded(cases[:1], Census.of(cases, [recorded]), cases)
    assert "adopt default/creds" not in asked.message, "nor where only one of them was asked for"


def test_an_annotation_that_is_not_read_hides_nothing() -> None:
    """What it says of previous accounts counts all the same, and what a copy names is not named by nothing."""
    previous = json.dumps([{"id": "user-7", "name": "app_abcdefghij"}])
    broken = secret_view(named=None, annotations={CURRENT: "{junk", PREVIOUS: previous})
    unreadable, listed = annotated(broken)
    assert unreadable.problem is not None
    assert unreadable.problem[0] == "InvalidEvidence"
    assert (listed.id, listed.problem) == ("user-7", None)
    copy = secret_view(named=named(target="other/creds"), annotations={PREVIOUS: previous})
    census = Census.of([case(claims=tuple(annotated(copy)))], [])
    assert all(census.knows(id, "") for id in ("user-app_1", "user-7"))
    assert census.others("user-7", "", OTHER) == []


def test_the_labels_of_a_stopped_operator_come_with_the_command_that_removes_them() -> None:
    labelled = secret_view(labels=dict.fromkeys(OPERATOR_LABELS, "true"))
    advice = judged(case(secret=labelled)).advice
    assert advice.endswith(
        "kubectl label secret creds -n default reconcile.external-secrets.io/created-by- "
        "reconcile.external-secrets.io/managed- openai-key-rotator.io/managed=true"
    )
    assert judged(case()).advice == ""


def test_adopted_accounts_take_their_place_beside_the_recorded_ones() -> None:
    """What the entry took for current is superseded by what is in the Secret."""
    new, old = publication("app_new", NOW - minutes(5)), publication("app_old", NOW, superseded_at=NOW)
    after = adopted(entry(), LEDGER, new, previous=[old], target=target(source=source()), now=NOW)
    assert current(after) == new
    assert {p.account.name: p.superseded_at for p in after.history} == {"app_1": NOW, "app_new": None, "app_old": NOW}
    assert (
        adopted(entry(), LEDGER, None, previous=[old], target=None, now=NOW).last_rotated_at == entry().last_rotated_at
    )


def test_an_earlier_account_that_was_put_back_does_not_undo_the_last_rotation() -> None:
    """An old copy of the Secret is back, and the ledger has rotated since: what it says of that stays."""
    earlier, later = publication("app_old", NOW - timedelta(hours=4)), NOW - minutes(5)
    rotated = replace(entry(), last_rotated_at=later)
    after = adopted(rotated, LEDGER, earlier, previous=(), target=None, now=NOW)
    assert (current(after), after.last_rotated_at) == (earlier, later)
    unknown = replace(entry(), last_rotated_at=None)
    assert adopted(unknown, LEDGER, earlier, previous=(), target=None, now=NOW).last_rotated_at == earlier.at


def test_a_publication_without_a_known_key_may_be_what_the_secret_carries() -> None:
    """Until the key in there is one that the ledger knows."""
    unknown = publication(account=account(data_key="api_key"), superseded_at=NOW)
    known = publication("app_2", account=account("app_2", key_digest="d2", data_key="api_key"))
    carrying = secret_view(digests={"api_key": "d2"})
    assert unaccounted(entry(unknown), unknown, carrying)
    assert not unaccounted(entry(unknown, known), unknown, carrying)
    assert not unaccounted(entry(unknown), unknown, None)
    assert not unaccounted(entry(known), known, secret_view(digests={"api_key": "d9"}))
