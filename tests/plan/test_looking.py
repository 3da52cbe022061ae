"""Where the Secret need not be read, and what is presumed of it then."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.builders import (
    ACCESS,
    NOW,
    RUN,
    account,
    entry,
    generator,
    intent,
    minutes,
    publication,
    secret_view,
    source,
    target,
)
from worker.errors import Throttled
from worker.model.entries import Account, Entry, Look, Publication, current
from worker.model.outcomes import RunInfo
from worker.model.targets import CreationPolicy, Project, ProjectAccess, Target
from worker.model.templates import Placed, Rendered, Template
from worker.model.values import Version
from worker.observe.observation import Observation
from worker.plan.decisions import NOT_DUE, Blocked, Decision, Keep, Unable
from worker.plan.looking import presumed_secret, wish, with_this_look
from worker.plan.rotation import decide

HOURLY = replace(RUN, look_every=timedelta(hours=1))
KEYED = account(key_digest="sha256:1", data_key="api_key")
LOOKED = Look(NOW - minutes(10), wish(target(), entry()))
WELL = Keep(NOT_DUE, "next rotation later")


def looked_at(key: Account = KEYED, look: Look | None = LOOKED, **changes: Any) -> Entry:
    return entry(publication(account=key, look=look), **changes)


@pytest.mark.parametrize("ago", [0, 1, 59])
def test_a_recent_look_stands_for_a_read(ago: float) -> None:
    found = presumed_secret(target(), looked_at(look=replace(LOOKED, at=NOW - minutes(ago))), HOURLY, now=NOW)
    assert found is not None
    assert found.digests == {"api_key": "sha256:1"}
    assert found.named is not None
    assert (found.named.name, found.named.id) == (KEYED.name, KEYED.id)


def test_what_is_presumed_is_decided_like_a_secret_that_is_well() -> None:
    stored = looked_at()
    presumed = presumed_secret(target(), stored, HOURLY, now=NOW)
    read = secret_view(digests={"api_key": "sha256:1"})
    for secret in (presumed, read):
        assert decide(target(), Observation(secret, stored, "app_1"), HOURLY, now=NOW).reason == NOT_DUE


TEMPLATE = Template({"config": ("key: ", "\n"), "mode": ("fast",)})
RENDERED = replace(KEYED, data_key=None, rendered=replace(TEMPLATE.rendered(None), values={
    "config": Placed(5, "sha256:2"), "mode": Placed(None, "sha256:3")}))  # fmt: skip


def test_what_a_template_has_made_is_presumed_whole() -> None:
    wanted = target(template=TEMPLATE)
    stored = looked_at(RENDERED, replace(LOOKED, wish=wish(wanted, entry())))
    presumed = presumed_secret(wanted, stored, HOURLY, now=NOW)
    assert presumed is not None
    assert presumed.digests == {"config": "sha256:2", "mode": "sha256:3"}
    assert decide(wanted, Observation(presumed, stored, "app_1"), HOURLY, now=NOW).reason == NOT_DUE


UNKNOWN = Rendered(TEMPLATE.digest, {"config": Placed(5, "sha256:2"), "mode": Placed(None, None)})


@pytest.mark.parametrize(
    "stored",
    [
        looked_at(look=None),
        looked_at(look=replace(LOOKED, at=NOW - minutes(60))),
        looked_at(look=replace(LOOKED, at=NOW + minutes(1))),
        looked_at(look=replace(LOOKED, wish="another")),
        looked_at(unpublished=(intent(),)),
        looked_at(replace(KEYED, key_digest=None)),
        looked_at(replace(KEYED, id=None)),
        entry(publication(account=KEYED, look=LOOKED, superseded_at=NOW)),
        entry(publication("app_0", superseded_at=NOW), publication(account=KEYED, look=LOOKED)),
        looked_at(version=Version("another-uid", "1")),
    ],
    ids=["never", "an hour ago", "in the future", "for other wishes", "at work", "no digest", "no id", "superseded",
         "another account waits to go", "another object"],
)  # fmt: skip
def test_otherwise_a_run_looks(stored: Entry) -> None:
    assert presumed_secret(target(), stored, HOURLY, now=NOW) is None


def test_a_value_that_is_not_known_is_looked_at() -> None:
    wanted = target(template=TEMPLATE)
    stored = looked_at(replace(RENDERED, rendered=UNKNOWN), replace(LOOKED, wish=wish(wanted, entry())))
    assert presumed_secret(wanted, stored, HOURLY, now=NOW) is None
    seen = Observation(secret_view(), stored, at=NOW)
    assert with_this_look(wanted, seen, WELL, stored, HOURLY) is stored


def test_without_the_option_every_run_looks() -> None:
    assert presumed_secret(target(), looked_at(), RUN, now=NOW) is None


OTHER_PROJECT = ProjectAccess(Project("https://api.openai.com/v1", "proj_2"), ACCESS.admin_key)


@pytest.mark.parametrize(
    "changed",
    [
        target(interval=timedelta(hours=2)),
        target(creation=CreationPolicy.ORPHAN),
        target(suspended=True),
        target(requests={"rotate": "1"}),
        target(labels={"a": "b"}),
        target(source=source(generation=4)),
        target(source=source(uid="another")),
        target(generator=generator(access=OTHER_PROJECT)),
        target(template=TEMPLATE),
    ],
)
def test_every_change_of_what_is_asked_for_is_another_wish(changed: Target) -> None:
    assert wish(changed, entry()) != wish(target(), entry())


def test_the_status_of_the_source_is_no_wish() -> None:
    """It is the worker's own."""
    told = target(source=source(status={"refreshTime": "now"}))
    assert wish(told, entry()) == wish(target(), entry())


def after_a_look(before: Publication, decision: Decision = WELL, run: RunInfo = HOURLY, **seen: Any) -> Look | None:
    stored = entry(before)
    values: dict[str, Any] = {"at": NOW} | seen
    found = current(with_this_look(target(), Observation(secret_view(), stored, **values), decision, stored, run))
    assert found is not None
    return found.look


def test_a_look_that_found_all_well_is_noted() -> None:
    assert after_a_look(publication(account=KEYED)) == Look(NOW, wish(target(), entry()))


def test_a_look_is_not_noted_again_while_it_counts() -> None:
    """A run that read the Secret all the same would write in vain, and the next one again."""
    assert after_a_look(publication(account=KEYED, look=LOOKED)) == LOOKED


@pytest.mark.parametrize("run", [HOURLY, RUN], ids=["with the option", "without"])
@pytest.mark.parametrize(
    "decision",
    [Unable("OpenAIUnanswered", "words"), Blocked("SecretImmutable", "words"), Keep("Suspended", "words")],
)
def test_a_look_that_found_it_otherwise_ends_the_earlier_one(decision: Decision, run: RunInfo) -> None:
    """Another run would presume to be well what this one has seen, and say so."""
    assert after_a_look(publication(account=KEYED, look=LOOKED), decision, run) is None


@pytest.mark.parametrize(
    ("decision", "seen"),
    [
        (WELL, {"presumed": True}),
        (WELL, {"trouble": Throttled("Throttled", "words")}),
        (Keep("Suspended", "words"), {}),
        (Keep("InProgress", "words"), {}),
    ],
)
def test_other_looks_are_not_noted(decision: Decision, seen: dict[str, Any]) -> None:
    assert after_a_look(publication(account=KEYED), decision, **seen) is None
