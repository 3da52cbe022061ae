"""What is decided for one target."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import (
    ACCESS,
    KEY,
    LEDGER,
    NOW,
    PROJECT,
    RUN,
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
from tests.support.strategies import TIMES
from worker.errors import (
    AdminKeyUnusable,
    Deferred,
    Forbidden,
    NotFound,
    NotSent,
    Refused,
    RotatorError,
    Throttled,
    Unanswered,
)
from worker.kubernetes.generator import GENERATORS
from worker.kubernetes.secret import MANAGED
from worker.ledger.catch_up import catch_up_with_secret
from worker.ledger.transitions import intended, published
from worker.model.entries import Condition, Entry, Failures, RefusedScopes
from worker.model.hidden import Hidden
from worker.model.sightings import SecretView
from worker.model.targets import CreationPolicy, Project, ProjectAccess, Target
from worker.model.templates import Template
from worker.observe.observation import Observation
from worker.plan.decisions import Blocked, Decision, Rotate, Unable
from worker.plan.rotation import decide


def seen(entry_: Entry | None = None, secret: SecretView | str | None = "", **changes: Any) -> Observation:
    """A target that was rotated half an hour ago, is well, and is not due."""
    values: dict[str, Any] = {"named_at_openai": "app_1"}
    found = secret_view() if isinstance(secret, str) else secret
    return Observation(found, entry_ or entry(), **(values | changes))


def decided(wanted: Target | None = None, what: Observation | None = None, **run: Any) -> Decision:
    return decide(wanted or target(), what or seen(), replace(RUN, **run), now=NOW)


def says(decision: Decision) -> tuple[str, str]:
    return type(decision).__name__, decision.reason


PASSING = [NotSent("Net", "words"), Unanswered("Slow", "words"), Throttled("Throttled", "words")]
LASTING = [AdminKeyUnusable("words", absent=True), Forbidden("No", "words", status=403), Refused("R", "w", status=400)]
OTHER_PROJECT = ProjectAccess(Project(PROJECT.host, "proj_2"), ACCESS.admin_key)
OTHER_HOST = ProjectAccess(Project("https://eu.api.openai.com/v1", "proj_1"), ACCESS.admin_key)
OTHER_ADMIN_KEY = replace(ACCESS, admin_key=replace(ACCESS.admin_key, key="another"))
NO_SECRET = seen(empty_entry(), None, named_at_openai=None)
UNLABELLED = secret_view(labels={}, named=None)
DUE = entry(last_rotated_at=NOW - minutes(60))
SCOPED = entry(publication(account=account(scopes=("a.b", "c.d"))))
REFUSED = entry(refused_scopes=RefusedScopes(("a.b",), PROJECT, NOW - timedelta(300), "ScopesRefused", "words"))

DIGESTED = publication(account=account(key_digest="sha256:1"))
KEYED = entry(DIGESTED)


PLACED = entry(replace(DIGESTED, account=replace(DIGESTED.account, data_key="api_key")))
"""The ledger knows at which data key the last run has put it."""


def keyed(**changes: Any) -> SecretView:
    """A Secret with the very key that the ledger knows."""
    return secret_view(**({"digests": {"api_key": "sha256:1"}} | changes))


TEMPLATE = Template({"file": ("key=", ""), "level": ("info",)})
OTHER_TEMPLATE = Template({"file": ("key: ", ""), "level": ("info",)})
FILES = {"file": Hidden("key=" + KEY).digest(), "level": Hidden("info").digest()}
RENDERED = entry(publication(account=account(key_digest=Hidden(KEY).digest(), rendered=TEMPLATE.rendered(Hidden(KEY)))))
OVERTAKEN = replace(RENDERED, last_rotated_at=NOW + timedelta(seconds=1))


def filled(**digests: str) -> SecretView:
    """A Secret with these values of `TEMPLATE`, in place of those that were published with the key."""
    found = FILES | digests
    return secret_view(filled=frozenset(found), digests=found)


def without(data_key: str) -> SecretView:
    found = {key: digest for key, digest in FILES.items() if key != data_key}
    return secret_view(filled=frozenset(found), digests=found)


LATER = empty_entry(unpublished=(intent(claimed_until=NOW, requested_at=NOW + timedelta(seconds=1)),))
"""A run that began after this one has asked for an account, and nobody works on it any more."""


def unasked(what: Entry) -> Observation:
    """A Secret that names `app_2` and holds another key; OpenAI could not be asked about that account."""
    secret = secret_view(named=named(account("app_2")), digests={"api_key": "sha256:2"})
    return seen(what, secret, named_at_openai=None, asked=False)


WELL: list[tuple[str, Target, Observation, tuple[str, str]]] = [
    ("nothing to do", target(), seen(), ("Keep", "NotDue")),
    ("never served", target(), NO_SECRET, ("Rotate", "First")),
    ("Secret without a key yet", target(), seen(empty_entry(), secret_view(named=None, labels={}, owners=(
        {"uid": "source-uid"},))), ("Rotate", "First")),
    ("Secret deleted", target(), seen(entry(), None), ("Rotate", "SecretMissing")),
    ("due", target(), seen(DUE), ("Rotate", "Due")),
    ("due, never recorded when", target(), seen(entry(last_rotated_at=None)), ("Rotate", "Due")),
    ("once only, long ago", target(interval=None), seen(entry(last_rotated_at=NOW - timedelta(900))),
     ("Keep", "NotDue")),
    ("once only, Secret deleted", target(interval=None), seen(entry(), None), ("Rotate", "SecretMissing")),
    ("data key empty", target(), seen(secret=secret_view(filled=frozenset())), ("Rotate", "KeyMissing")),
    ("data key renamed", target(data_key="OTHER"), seen(), ("Rotate", "KeyMissing")),
    ("data key renamed, and an earlier run has rotated", target(data_key="OTHER"), seen(PLACED, keyed()),
     ("Rotate", "KeyMissing")),
    ("data key renamed back, but a later run has rotated by the newer one", target(data_key="OTHER"),
     seen(replace(PLACED, last_rotated_at=NOW + timedelta(seconds=1)), keyed()), ("Keep", "NotDue")),
    ("annotation removed", target(), seen(secret=secret_view(named=None)), ("Rotate", "KeyMissing")),
    ("project changed", target(generator=generator(access=OTHER_PROJECT)), seen(), ("Rotate", "ProjectChanged")),
    ("host changed", target(generator=generator(access=OTHER_HOST)), seen(), ("Rotate", "ProjectChanged")),
    ("scopes asked for", target(key_scopes=("a.b",)), seen(), ("Rotate", "ScopesChanged")),
    ("scopes changed", target(key_scopes=("a.b",)), seen(SCOPED), ("Rotate", "ScopesChanged")),
    ("scopes no longer asked for", target(), seen(SCOPED), ("Rotate", "ScopesChanged")),
    ("the same scopes", target(key_scopes=("a.b", "c.d")), seen(SCOPED), ("Keep", "NotDue")),
    ("scopes changed, but a later run has rotated", target(key_scopes=("a.b",)),
     seen(replace(SCOPED, last_rotated_at=NOW + timedelta(seconds=1))), ("Keep", "NotDue")),
    ("scopes and project changed", target(key_scopes=("a.b",), generator=generator(access=OTHER_PROJECT)), seen(),
     ("Rotate", "ProjectChanged")),
    ("scopes changed, account gone", target(key_scopes=("a.b",)), seen(named_at_openai=None),
     ("Rotate", "AccountGone")),
    ("suspended, scopes changed", target(suspended=True, key_scopes=("a.b",)), seen(), ("Keep", "Suspended")),
    ("file as it was written", target(template=TEMPLATE), seen(RENDERED, filled()), ("Keep", "NotDue")),
    ("file edited", target(template=TEMPLATE), seen(RENDERED, filled(file="x")), ("Rotate", "KeyMissing")),
    ("text edited", target(template=TEMPLATE), seen(RENDERED, filled(level="x")), ("Rotate", "KeyMissing")),
    ("file lost", target(template=TEMPLATE), seen(RENDERED, without("file")), ("Rotate", "KeyMissing")),
    ("text lost", target(template=TEMPLATE), seen(RENDERED, without("level")), ("Rotate", "KeyMissing")),
    ("others' data beside the files", target(template=TEMPLATE), seen(RENDERED, filled(mine="x")), ("Keep", "NotDue")),
    ("template changed", target(template=OTHER_TEMPLATE), seen(RENDERED, filled()), ("Rotate", "TemplateChanged")),
    ("template changed, file edited: that heals", target(template=OTHER_TEMPLATE), seen(RENDERED, filled(file="x")),
     ("Rotate", "KeyMissing")),
    ("template taken away", target(), seen(RENDERED, filled()), ("Rotate", "TemplateChanged")),
    ("template where there was none", target(template=TEMPLATE), seen(PLACED, keyed()), ("Rotate", "TemplateChanged")),
    ("template where there was none, key lost", target(template=TEMPLATE),
     seen(PLACED, secret_view(filled=frozenset())), ("Rotate", "KeyMissing")),
    ("template changed, but a later run has rotated by the newer one", target(template=OTHER_TEMPLATE),
     seen(OVERTAKEN, filled()), ("Keep", "NotDue")),
    ("template taken away, but a later run has rotated by it", target(), seen(OVERTAKEN, filled()), ("Keep", "NotDue")),
    ("a later run has rotated, and then the file was edited", target(template=OTHER_TEMPLATE),
     seen(OVERTAKEN, filled(file="x")), ("Rotate", "KeyMissing")),
    ("template changed, annotation lost", target(template=OTHER_TEMPLATE),
     seen(RENDERED, replace(filled(), named=None)), ("Rotate", "KeyMissing")),
    ("annotation lost, files in place", target(template=TEMPLATE), seen(RENDERED, replace(filled(), named=None)),
     ("Restore", "AnnotationLost")),
    ("suspended, template changed", target(suspended=True, template=OTHER_TEMPLATE), seen(RENDERED, filled()),
     ("Keep", "Suspended")),
    ("account gone, template changed", target(template=OTHER_TEMPLATE), seen(RENDERED, filled(), named_at_openai=None),
     ("Rotate", "AccountGone")),
    ("Secret too large with its template", target(template=TEMPLATE),
     seen(RENDERED, replace(filled(), sizes={"mine": 1024 * 1024})), ("Blocked", "SecretTooLarge")),
    ("Secret as large as may be", target(template=TEMPLATE),
     seen(RENDERED, replace(filled(), sizes={"mine": 1024 * 1024 - 264, "file": 999})), ("Keep", "NotDue")),
    ("Secret a byte larger than may be", target(template=TEMPLATE),
     seen(RENDERED, replace(filled(), sizes={"mine": 1024 * 1024 - 263, "file": 999})), ("Blocked", "SecretTooLarge")),
    ("template too large by itself", target(template=Template({"a": ("",) * 5000})),
     seen(empty_entry(), None, named_at_openai=None), ("Blocked", "SecretTooLarge")),
    ("no template, and a Secret as large as may be", target(),
     seen(PLACED, keyed(sizes={"mine": 1024 * 1024})), ("Keep", "NotDue")),
    ("refused scopes, not asked for any more", target(), seen(REFUSED), ("Keep", "NotDue")),
    ("other scopes than the refused", target(key_scopes=("c.d",)), seen(REFUSED), ("Rotate", "ScopesChanged")),
    ("refused scopes, another project", target(key_scopes=("a.b",), generator=generator(access=OTHER_PROJECT)),
     seen(REFUSED), ("Rotate", "ProjectChanged")),
    ("refused scopes, asked for anew", target(key_scopes=("a.b",), requests={"rotate": "2"}), seen(REFUSED),
     ("Rotate", "ScopesChanged")),
    ("admin key moved", target(generator=generator(access=OTHER_ADMIN_KEY)), seen(), ("Keep", "NotDue")),
    ("account gone", target(), seen(named_at_openai=None), ("Rotate", "AccountGone")),
    ("put back to an account that is gone and released", target(),
     seen(secret=secret_view(named=named(account("released"))), named_at_openai=None), ("Rotate", "AccountGone")),
    ("lost ledger, account gone", target(), seen(empty_entry(), named_at_openai=None), ("Rotate", "AccountGone")),
    ("annotation of another installation, account adopted", target(),
     seen(secret=secret_view(named=named(ledger="another"))), ("Keep", "NotDue")),
    ("annotation of another installation, account gone", target(),
     seen(empty_entry(), secret_view(named=named(ledger="another")), named_at_openai=None), ("Rotate", "AccountGone")),
    ("a later run has perhaps published, and OpenAI could not be asked", target(), unasked(LATER),
     ("Keep", "InProgress")),
    ("the same, and the account before is recorded", target(),
     unasked(replace(KEYED, unpublished=LATER.unpublished)), ("Keep", "InProgress")),
    ("the same, and OpenAI says that there is no such account", target(), replace(unasked(LATER), asked=True),
     ("Rotate", "AccountGone")),
    ("this run or one before has perhaps published", target(),
     unasked(empty_entry(unpublished=(intent(claimed_until=NOW),))), ("Rotate", "AccountGone")),
    ("a later run's key was never published", target(),
     unasked(empty_entry(unpublished=(replace(LATER.unpublished[0], refused=True),))), ("Rotate", "AccountGone")),
    ("requested", target(requests={"rotate": "2"}), seen(), ("Rotate", "Requested")),
    ("requested before", target(requests={"rotate": "2"}), seen(entry(honoured={"rotate": "2"})), ("Keep", "NotDue")),
    ("another value", target(requests={"rotate": "3"}), seen(entry(honoured={"rotate": "2"})), ("Rotate", "Requested")),
    ("requested, but a later run has served a newer value", target(requests={"rotate": "2"}),
     seen(entry(honoured={"rotate": "3"}, last_rotated_at=NOW + timedelta(seconds=1))), ("Keep", "NotDue")),
    ("request withdrawn", target(), seen(entry(honoured={"rotate": "2"})), ("Keep", "NotDue")),
    ("the last attempt failed", target(), seen(entry(failures=Failures(1, NOW))), ("Rotate", "Retry")),
    ("the last attempt was lost", target(), seen(entry(unpublished=(intent(claimed_until=NOW),))),
     ("Rotate", "Retry")),
    ("an older attempt was lost", target(), seen(entry(unpublished=(intent(claimed_until=NOW - minutes(99)),))),
     ("Keep", "NotDue")),
    ("expires in a month", target(), seen(entry(publication(account=account(expires_at=NOW + timedelta(30))))),
     ("Keep", "NotDue")),
    ("expires within a day of long", target(),
     seen(entry(publication(at=NOW - timedelta(30), account=account(expires_at=NOW + timedelta(1))))),
     ("Rotate", "Expiring")),
    ("expires within a third", target(), seen(entry(publication(account=account(expires_at=NOW + minutes(15))))),
     ("Rotate", "Expiring")),
    ("expires, not within a third", target(), seen(entry(publication(account=account(expires_at=NOW + minutes(16))))),
     ("Keep", "NotDue")),
    ("expired before it was recorded", target(),
     seen(entry(publication(at=NOW, account=account(expires_at=NOW - timedelta(1))))), ("Rotate", "Expiring")),
    ("suspended", target(suspended=True), seen(DUE), ("Keep", "Suspended")),
    ("suspended, Secret deleted", target(suspended=True), seen(entry(), None), ("Keep", "Suspended")),
    ("suspended, requested", target(suspended=True, requests={"rotate": "2"}), seen(), ("Keep", "Suspended")),
    ("Merge into what is there", target(creation=CreationPolicy.MERGE), seen(empty_entry(), UNLABELLED),
     ("Rotate", "First")),
    ("CreateOrMerge into what is there", target(creation=CreationPolicy.CREATE_OR_MERGE),
     seen(empty_entry(), UNLABELLED), ("Rotate", "First")),
    ("CreateOrMerge without one", target(creation=CreationPolicy.CREATE_OR_MERGE), NO_SECRET, ("Rotate", "First")),
    ("claimed by another run", target(), seen(entry(unpublished=(intent(),))), ("Keep", "InProgress")),
    ("passing trouble, not due", target(), seen(trouble=PASSING[0], named_at_openai=None), ("Keep", "NotDue")),
    ("annotation removed, key in place", target(), seen(KEYED, keyed(named=None)), ("Restore", "AnnotationLost")),
    ("annotation removed, another key", target(), seen(KEYED, keyed(named=None, digests={"api_key": "x"})),
     ("Rotate", "KeyMissing")),
    ("annotation removed, key under another name", target(data_key="OTHER"), seen(KEYED, keyed(named=None)),
     ("Rotate", "KeyMissing")),
    ("annotation removed, due", target(), seen(replace(KEYED, last_rotated_at=None), keyed(named=None)),
     ("Rotate", "Due")),
    ("annotation removed, owner and label too", target(creation=CreationPolicy.ORPHAN),
     seen(KEYED, keyed(named=None, labels={})), ("Restore", "AnnotationLost")),
    ("label removed, key in place", target(), seen(KEYED, keyed(labels={})), ("Restore", "AnnotationLost")),
    ("label removed, key unknown", target(), seen(secret=secret_view(labels={})), ("Keep", "NotDue")),
    ("annotation of an account that never was, key in place", target(),
     seen(KEYED, keyed(named=named(account("never"))), named_at_openai=None), ("Restore", "AnnotationLost")),
    ("the same while OpenAI does not answer", target(),
     seen(KEYED, keyed(named=named(account("never"))), trouble=PASSING[0], named_at_openai=None), ("Keep", "NotDue")),
    ("an earlier key put back without its annotation", target(),
     seen(entry(DIGESTED, publication("app_9", at=NOW, superseded_at=NOW)), keyed(named=None)),
     ("Rotate", "KeyMissing")),
    ("label edits", target(labels={"a": "b"}, annotations={"c": "d"}),
     seen(secret=secret_view(labels={"x": "y"}, annotations={"a": "b"})), ("Keep", "NotDue")),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "what", "expected"), [w[1:] for w in WELL], ids=[w[0] for w in WELL])
def test_each_state_has_its_decision(wanted: Target, what: Observation, expected: tuple[str, str]) -> None:
    """The table of what may be and what is done about it."""
    assert says(decided(wanted, what)) == expected


NARROW = target(key_scopes=("a.b",))


@pytest.mark.parametrize(
    ("wanted", "what", "run"),
    [
        (NARROW, seen(REFUSED), {}),
        (NARROW, seen(REFUSED, None), {}),
        (NARROW, seen(replace(REFUSED, failures=Failures(3, NOW + minutes(5)))), {}),
        (replace(NARROW, requests={"rotate": "2"}), seen(replace(REFUSED, honoured={"rotate": "2"})), {}),
        (NARROW, seen(replace(REFUSED, honoured={"force": "job-1"})), {"force": True, "job": "job-1"}),
    ],
    ids=["changed", "Secret deleted", "pausing as well", "asked for anew before", "another try of the forced Job"],
)
def test_refused_scopes_make_no_key(wanted: Target, what: Observation, run: dict[str, Any]) -> None:
    """Whatever the reason for one is: without it the Secret would get a wider key, or OpenAI another account."""
    assert says(decided(wanted, what, **run)) == ("Blocked", "ScopesRefused")


@pytest.mark.parametrize(("age", "expected"), [(23, ("Blocked", "OpenAIForbidden")), (24, ("Rotate", "ScopesChanged"))])
def test_a_key_that_could_not_be_narrowed_for_another_reason_is_tried_once_a_day(
    age: int, expected: tuple[str, str]
) -> None:
    """Somebody may have given the admin key its right since."""
    refused = RefusedScopes(("a.b",), PROJECT, NOW - timedelta(hours=age), "OpenAIForbidden", "words")
    assert says(decided(NARROW, seen(entry(refused_scopes=refused)))) == expected


@pytest.mark.parametrize("run", [{"force": True}, {"force": True, "job": "job-2"}, {"force": True, "repeat": True}])
def test_refused_scopes_are_tried_again_by_force(run: dict[str, Any]) -> None:
    what = seen(replace(REFUSED, honoured={"force": "job-1"}))
    assert isinstance(decided(NARROW, what, **run), Rotate)


EXTERNAL_SECRET = {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "name": "another", "uid": "x"}
BLOCKED: list[tuple[str, Target, Observation, str]] = [
    ("entry of another installation", target(), seen(entry(ledger="another")), "ForeignLedger"),
    ("annotation of another installation", target(),
     seen(empty_entry(), secret_view(named=named(ledger="another"))), "ForeignLedger"),
    ("annotation of another installation, OpenAI away", target(),
     seen(empty_entry(), secret_view(named=named(ledger="another")), named_at_openai=None, trouble=PASSING[0]),
     "ForeignLedger"),
    ("annotation of another installation, account out of sight", target(),
     seen(empty_entry(), secret_view(named=named(ledger="another")), named_at_openai=None, asked=False),
     "ForeignLedger"),
    ("annotation of another installation beside our account", target(),
     seen(secret=secret_view(named=named(account("theirs"), ledger="another")), named_at_openai="theirs"),
     "ForeignLedger"),
    ("adopted account under another id", target(),
     seen(secret=secret_view(named=named(id="user-theirs", ledger="another"))), "ForeignLedger"),
    ("copied, though its account is ours", target(),
     seen(secret=secret_view(named=named(target="other/creds", ledger="another"))), "CopiedSecret"),
    ("copied from another name", target(), seen(secret=secret_view(named=named(target="default/another"))),
     "CopiedSecret"),
    ("copied from another namespace", target(), seen(secret=secret_view(named=named(target="other/creds"))),
     "CopiedSecret"),
    ("account that the ledger does not know", target(), seen(empty_entry()), "UnknownAccount"),
    ("forged id of a known account", target(),
     seen(secret=secret_view(named=named(id="user-forged")), named_at_openai="victim"), "UnknownAccount"),
    ("account elsewhere", target(),
     seen(empty_entry(), secret_view(named=named(project=Project(PROJECT.host, "p2"))), named_at_openai=None,
          asked=False), "UnknownAccount"),
    ("account of which nobody knows where", target(),
     seen(empty_entry(), secret_view(named=named(project=None)), named_at_openai=None, asked=False),
     "UnknownAccount"),
    ("Secret of another type", target(), seen(secret=secret_view(type="kubernetes.io/tls")), "SecretType"),
    ("Secret for a service account's token", target(),
     seen(secret=secret_view(type="kubernetes.io/service-account-token")), "SecretType"),
    ("immutable Secret", target(), seen(DUE, secret_view(immutable=True)), "SecretImmutable"),
    ("Secret of nobody", target(), seen(empty_entry(), secret_view(labels={}, named=None)), "ForeignSecret"),
    ("Secret with only our label", target(), seen(empty_entry(), secret_view(named=None)), "ForeignSecret"),
    ("Secret with only a history", target(), seen(entry(), UNLABELLED), "ForeignSecret"),
    ("Orphan does not take over", target(creation=CreationPolicy.ORPHAN), seen(empty_entry(), UNLABELLED),
     "ForeignSecret"),
    ("operator's label", target(),
     seen(secret=secret_view(labels={"reconcile.external-secrets.io/created-by": "x", MANAGED: "true"})),
     "ForeignSecret"),
    ("operator's label and Merge", target(creation=CreationPolicy.MERGE),
     seen(empty_entry(), secret_view(labels={"reconcile.external-secrets.io/managed": "true"}, named=None)),
     "ForeignSecret"),
    ("another ExternalSecret's", target(), seen(secret=secret_view(owners=(EXTERNAL_SECRET,))), "ForeignSecret"),
    ("an ExternalSecret's, target stands alone", target(source=source(kind="OpenAI", resource=GENERATORS)),
     seen(secret=secret_view(owners=(EXTERNAL_SECRET | {"name": "creds"},))), "ForeignSecret"),
    ("Merge without a Secret", target(creation=CreationPolicy.MERGE), NO_SECRET, "SecretMissing"),
    ("suspended and blocked", target(suspended=True), seen(secret=secret_view(immutable=True)), "SecretImmutable"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "what", "reason"), [b[1:] for b in BLOCKED], ids=[b[0] for b in BLOCKED])
@pytest.mark.parametrize("force", [False, True])
def test_what_must_not_be_written_is_blocked_with_words(
    wanted: Target, what: Observation, reason: str, force: bool
) -> None:
    """Forced or not; the message says which Secret it is about."""
    decision = decided(wanted, what, force=force)
    assert says(decision) == ("Blocked", reason)
    assert "default/creds" in decision.message


def test_the_sources_earlier_self_may_own_the_secret() -> None:
    """An ExternalSecret that was deleted and made again has another uid."""
    stale = EXTERNAL_SECRET | {"name": "creds"}
    assert says(decided(what=seen(secret=secret_view(owners=(stale,))))) == ("Keep", "NotDue")


@pytest.mark.parametrize("text", ["\ud800", "\n\x1b[2J", "x" * 9000])
@pytest.mark.parametrize("field", ["ledger", "target", "name"])
def test_words_about_a_forged_annotation_can_be_shown(field: str, text: str) -> None:
    """A tenant's text is quoted: no control characters, nothing that UTF-8 cannot write, not too long."""
    forged: dict[str, Any] = {field: text}
    what = seen(empty_entry(), secret_view(named=named(**forged)))
    decision = decided(what=what)
    assert isinstance(decision, Blocked)
    assert decision.message.encode().decode().isprintable()
    assert len(decision.message) < 500


@pytest.mark.parametrize("trouble", LASTING)
def test_a_lasting_trouble_is_reported_although_nothing_is_due(trouble: RotatorError) -> None:
    """Waiting does not mend a missing permission."""
    assert says(decided(what=seen(trouble=trouble, named_at_openai=None))) == ("Unable", trouble.reason)


@pytest.mark.parametrize("trouble", PASSING + LASTING)
@pytest.mark.parametrize("what", [seen(DUE), NO_SECRET, seen(entry(), None), seen(empty_entry())])
def test_nothing_is_rotated_while_openai_cannot_be_asked(what: Observation, trouble: RotatorError) -> None:
    """Not even where the ledger does not know the account: it is not taken for gone."""
    what = replace(what, trouble=trouble, named_at_openai=None)
    assert says(decided(what=what)) == ("Unable", trouble.reason)


@pytest.mark.parametrize(
    ("error", "subject"),
    [
        (Refused("OpenAIUnauthorized", "no"), f"; asked with {ACCESS.admin_key} about project {PROJECT}"),
        (Forbidden("OpenAIForbidden", "no"), f"; asked with {ACCESS.admin_key} about project {PROJECT}"),
        (NotFound("OpenAINotFound", "no"), f"; asked about project {PROJECT}"),
        (Refused("OpenAIRefused", "no"), f"; asked about project {PROJECT}"),
        (NotSent("OpenAIUnreachable", "no"), f"; the host is {PROJECT.host}"),
        (Unanswered("OpenAIUnanswered", "no"), f"; the host is {PROJECT.host}"),
        (Unanswered("ClusterUnanswered", "no"), ""),
        (Deferred("OpenAIUnanswered", f"silence about {PROJECT}"), ""),
    ],
)
def test_words_of_openai_name_what_they_are_about(error: RotatorError, subject: str) -> None:
    """The object that somebody has to look at, once; the cluster's errors name theirs already."""
    decision = decided(what=seen(DUE, trouble=error, named_at_openai=None))
    assert isinstance(decision, Unable)
    assert decision.message.startswith(f"{error.message}{subject}")
    assert decision.message.count(PROJECT.host) == (1 if PROJECT.host in f"{error.message}{subject}" else 0)


def test_attempts_back_off() -> None:
    """With the words of the last failure, and until when."""
    later = NOW + minutes(4)
    state = entry(failures=Failures(3, later), condition=Condition(False, "Broken", "words", NOW))
    decision = decided(what=seen(state))
    assert isinstance(decision, Unable)
    assert (decision.reason, decision.until) == ("Broken", later)
    assert decision.message.startswith("words; last attempt failed; next attempt at 2026-11-24T10:04:00Z")
    assert says(decided(what=seen(replace(state, condition=None)))) == ("Unable", "BackingOff")


@pytest.mark.parametrize(
    ("wanted", "run", "reason"),
    [(target(), {"force": True}, "Forced"), (target(requests={"rotate": "2"}), {}, "Requested")],
)
def test_a_human_need_not_wait_for_the_back_off(wanted: Target, run: dict[str, Any], reason: str) -> None:
    """Who asks anew has mended something."""
    assert says(decided(wanted, seen(entry(failures=Failures(3, NOW + minutes(4)))), **run)) == ("Rotate", reason)


def test_a_target_that_was_never_published_backs_off_too() -> None:
    """A Secret that is refused every time costs one attempt an hour, not one a run."""
    what = replace(NO_SECRET, entry=empty_entry(failures=Failures(5, NOW + minutes(4))))
    assert isinstance(decided(what=what), Unable)


def test_force_rotates_what_is_not_due() -> None:
    """But not what is suspended, nor what another run is at."""
    assert says(decided(force=True)) == ("Rotate", "Forced")
    assert says(decided(target(suspended=True), force=True)) == ("Keep", "Suspended")
    assert says(decided(what=seen(entry(unpublished=(intent(),))), force=True)) == ("Keep", "InProgress")


# --- properties --------------------------------------------------------------------------------------------------

TEXT = st.sampled_from(["a", "b", "default/creds", LEDGER, "app_1", "user-app_1"])


@st.composite
def states(draw: st.DrawFn) -> tuple[Target, Observation, bool]:
    """Any target, anything that may be seen of it, forced or not."""
    history = [
        publication(name, draw(TIMES), superseded_at=draw(st.none() | TIMES))
        for name in draw(st.lists(st.sampled_from(["app_1", "app_2"]), unique=True))
    ]
    intents = [intent(name, draw(TIMES)) for name in draw(st.lists(st.sampled_from(["app_3", "app_4"]), unique=True))]
    state = empty_entry(
        ledger=draw(st.sampled_from([LEDGER, LEDGER, "another"])),
        history=tuple(history),
        unpublished=tuple(intents),
        last_rotated_at=draw(st.none() | TIMES),
        failures=draw(st.sampled_from([Failures(), Failures(2, NOW + minutes(3)), Failures(2, NOW)])),
        honoured=draw(st.sampled_from([{}, {"rotate": "1"}])),
    )
    forged = named(
        id=draw(st.sampled_from(["user-app_1", "user-app_2", "user-x"])),
        name=draw(st.sampled_from(["app_1", "app_2", "x"])),
        target=draw(st.sampled_from(["default/creds", "default/creds", "other/creds"])),
        ledger=draw(st.sampled_from([LEDGER, LEDGER, "another"])),
    )
    secret = secret_view(
        type=draw(st.sampled_from(["Opaque", "Opaque", "kubernetes.io/tls"])),
        immutable=draw(st.sampled_from([False, False, True])),
        filled=draw(st.sampled_from([frozenset({"api_key"}), frozenset()])),
        labels=draw(st.sampled_from([{MANAGED: "true"}, {}])),
        named=draw(st.sampled_from([None, named(), forged])),
    )
    what = Observation(
        draw(st.sampled_from([None, secret])),
        state,
        draw(st.sampled_from([None, "app_1", "app_2", "x"])),
        draw(st.sampled_from([None, None, *PASSING, *LASTING])),
    )
    wanted = target(
        suspended=draw(st.booleans()),
        requests=draw(st.sampled_from([{}, {"rotate": "1"}, {"rotate": "2"}])),
        interval=draw(st.sampled_from([None, minutes(1), minutes(60)])),
        creation=draw(st.sampled_from(CreationPolicy)),
    )
    return wanted, what, draw(st.booleans())


@settings(max_examples=400)
@given(states())
def test_what_always_holds(state: tuple[Target, Observation, bool]) -> None:
    """Whatever is seen: no rotation under a claim, for another ledger, while suspended, or into a foreign Secret
    whose account lives and is not recorded as ours.
    """
    wanted, what, force = state
    decision = decided(wanted, what, force=force)
    assert decision.reason.isalnum()
    assert decision.message
    assert decision == decided(wanted, what, force=force)
    if not isinstance(decision, Rotate):
        return
    assert what.entry.ledger == LEDGER
    assert what.entry.claimed_until(NOW) is None
    assert not wanted.suspended
    assert what.trouble is None
    if what.secret is None:
        assert wanted.creation is not CreationPolicy.MERGE
        return
    assert what.secret.type == "Opaque"
    assert not what.secret.immutable
    if what.secret.named is not None:
        annotation = what.secret.named
        assert annotation.target == str(wanted.ref)
        recorded = (annotation.name, annotation.id) in {(p.account.name, p.account.id) for p in what.entry.history}
        assert annotation.ledger == LEDGER or recorded or what.named_at_openai is None


@given(st.dictionaries(TEXT, TEXT), st.dictionaries(TEXT, TEXT), st.dictionaries(TEXT, TEXT))
def test_an_edit_of_labels_or_annotations_never_rotates(
    labels: dict[str, str], annotations: dict[str, str], template: dict[str, str]
) -> None:
    """Neither the Secret's nor the template's."""
    what = seen(secret=secret_view(labels=labels, annotations=annotations))
    assert says(decided(target(labels=template, annotations=template), what)) == ("Keep", "NotDue")


@settings(max_examples=200)
@given(st.integers(1, 3000), st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_a_target_is_rotated_once_per_interval_whatever_the_jitter(interval: int, jitter: list[float]) -> None:
    """Runs start each interval, at most the slack late: every one of them rotates, and a repetition of it does not."""
    wanted, slack = target(interval=minutes(interval)), min(minutes(interval / 10), minutes(5))
    state = empty_entry()
    for number, late in enumerate(jitter):
        started = NOW + number * minutes(interval) + late * slack
        run = replace(RUN, started_at=started)
        name = f"app_{number}"
        for again in (False, True):
            secret = secret_view(named=named(account(f"app_{number - 1 + again}"))) if state.history else None
            what = Observation(secret, state, secret.named.name if secret and secret.named else None)
            decision = decide(wanted, what, run, now=started)
            assert isinstance(decision, Rotate) is not again
            if not again:
                state = intended(
                    state, wanted, account(name), run=run, requested_at=started, claimed_until=started + minutes(3)
                )
                state = published(state, account(name), started, at=started + minutes(1))


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_nothing_is_due_before_its_slack(seconds: int, part: float) -> None:
    """A tenth of the interval, at most five minutes."""
    interval = timedelta(seconds=seconds)
    slack = min(interval / 10, minutes(5))
    last = NOW - part * (interval - slack) + timedelta(milliseconds=1)
    assert says(decided(target(interval=interval), seen(entry(last_rotated_at=last)))) == ("Keep", "NotDue")


def test_a_reverted_secret_is_kept_until_it_is_due_again() -> None:
    """A rollback by GitOps does not mint by itself."""
    before = entry(publication("app_0", superseded_at=NOW - minutes(30)), publication("app_1"))
    secret = secret_view(named=named(account("app_0")))
    what = Observation(secret, catch_up_with_secret(before, secret, "app_0", now=NOW), "app_0")
    assert says(decided(what=what)) == ("Keep", "NotDue")
