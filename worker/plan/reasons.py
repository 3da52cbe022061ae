"""Why a target gets a new key now: one function per reason, in order of precedence. Pure; no clock of its own.

Guarantees: a run tells the first reason that applies.
A target is due once per interval, measured from run start to run start (I5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from worker.kubernetes.reading import time_or_none
from worker.ledger.transitions import FORCED, SOURCE, renew_by
from worker.model.entries import Entry, Publication, current
from worker.model.outcomes import RunInfo
from worker.model.sightings import NamedAccount, SecretView
from worker.model.targets import RefreshPolicy, Target
from worker.model.times import format_duration, format_time
from worker.observe.observation import Observation
from worker.plan.decisions import Rotate
from worker.plan.marks import changed_values, expected_values, key_in_place, made_otherwise, names

LARGEST_SLACK = timedelta(minutes=5)
"""A run may start this much early against the one that rotated: schedules jitter."""

FORCED_ONCE_WITHIN = timedelta(minutes=15)
"""As long as a run may take by default: a Job's retry starts within it."""
HEALING = frozenset({"First", "SecretMissing", "KeyMissing", "AccountGone", "KeyGone", "Expiring"})
"""Reasons for which a target gets a key whatever else is the matter: without it an application breaks."""
REPEATED = HEALING - {"First", "Expiring"}
"""Those of them that somebody else may cause again and again; so may any reason that comes of a key put back."""
DEAD = frozenset({"AccountGone", "KeyGone"})
"""Reasons that say: whoever has the key of the account before has a dead one."""

_SHOWN = 5
"""So many data keys are named in a message."""
_ANNOTATIONS = {"forceSync": "force-sync", "generatorRotate": "rotate on the generator", "source": "the object's uid"}
"""The ledger's names of requests, as users write them."""


def reason_to_rotate(target: Target, seen: Observation, run: RunInfo) -> Rotate | None:
    """Why this target needs a new key now, None where it does not."""
    publication = current(seen.entry)
    if seen.secret is None or publication is None:
        return _without_key(seen.entry, seen.secret)
    keyed = _Keyed(target, seen, run, seen.secret, publication)
    return next((found for reason in REASONS if (found := reason(keyed)) is not None), None)


def is_repeated(rotate: Rotate) -> bool:
    """Can somebody else be the cause, again and again?"""
    return rotate.reason in REPEATED or rotate.put_back


def open_requests(target: Target, entry: Entry, run: RunInfo) -> list[str]:
    """The requests for a rotation that no run has served yet."""
    if _overtaken(entry, run):
        # A run that began later has seen newer requests, and has rotated.
        return []
    names = [name for name, value in target.requests.items() if entry.honoured.get(name) != value]
    made_anew = (
        target.refresh is RefreshPolicy.ON_CHANGE and entry.honoured.get(SOURCE, target.source.uid) != target.source.uid
    )
    return [*names, SOURCE] if made_anew and not names else names


def forced_before(entry: Entry, run: RunInfo) -> bool:
    """Has an earlier try of this Job rotated the target? Kubernetes repeats a Job that was killed near its end.

    A run that knows no Job goes by the time: another forced it minutes ago.
    """
    if run.job:
        return entry.honoured.get(FORCED) == run.job
    then = time_or_none(entry.honoured.get(FORCED))
    return then is not None and timedelta(0) <= run.started_at - then < FORCED_ONCE_WITHIN


def _overtaken(entry: Entry, run: RunInfo) -> bool:
    """Has a run that began later rotated the target?"""
    return entry.last_rotated_at is not None and entry.last_rotated_at > run.started_at


def _without_key(entry: Entry, secret: SecretView | None) -> Rotate:
    """No Secret, or none that holds a key of the ledger: there is always a reason."""
    if secret is None and entry.history:
        return Rotate("SecretMissing", "the Secret was deleted")
    if secret is None:
        return Rotate("First", "there is no Secret yet")
    if secret.named is not None:
        return Rotate("AccountGone", "the account that the Secret names does not exist at OpenAI")
    return Rotate("First", "the Secret holds no key of ours yet")


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A target whose Secret is there, and whose ledger entry says which account is current."""

    target: Target
    seen: Observation
    run: RunInfo
    secret: SecretView
    publication: Publication

    @property
    def named(self) -> NamedAccount | None:
        return self.secret.named

    @property
    def put_back(self) -> bool:
        """Has the target been rotated since the key was published that it carries now?"""
        last = self.seen.entry.last_rotated_at
        return last is not None and last > self.publication.at

    @property
    def placed_by_later_run(self) -> bool:
        """Has a run that began later put the key elsewhere?

        It has seen a newer data key or template: this run does not undo it.
        """
        account = self.publication.account
        moved = self.made_otherwise or account.values().keys() != self.target.values.keys()
        there = bool(account.values()) and all(self.secret.has(*value) for value in account.values().items())
        return moved and there and _overtaken(self.seen.entry, self.run)

    @property
    def made_otherwise(self) -> bool:
        """Does the template make other data values now than it did for this publication?"""
        return made_otherwise(self.target, self.publication.account)

    @property
    def in_place(self) -> bool:
        """Is the key in place? Then an annotation that says otherwise is what is wrong (`plan.marks`)."""
        return key_in_place(self.target, self.seen) is not None


# --- the key in the Secret is not as it should be ----------------------------------------------------------------


def _key_missing(keyed: _Keyed) -> Rotate | None:
    expected, secret = expected_values(keyed.target, keyed.publication.account), keyed.secret
    lost = [key for key, placed in expected.items() if key not in secret.filled and not secret.has(key, placed)]
    named = keyed.named is not None or keyed.in_place
    if (named and not lost) or keyed.placed_by_later_run:
        return None
    what = _quoted(lost or expected)
    return Rotate("KeyMissing", f"the Secret has lost its {what} or the annotation that names its account")


def _quoted(data_keys: Iterable[str]) -> str:
    quoted = [repr(data_key) for data_key in sorted(data_keys)]
    more = f" and {len(quoted) - _SHOWN} more" if len(quoted) > _SHOWN else ""
    return ", ".join(quoted[:_SHOWN]) + more


def _project_changed(keyed: _Keyed) -> Rotate | None:
    project = keyed.target.generator.access.project
    if keyed.publication.account.access.project == project:
        return None
    if _overtaken(keyed.seen.entry, keyed.run):
        # The later run has seen a newer generator: this run does not put its project back.
        return None
    return Rotate("ProjectChanged", f"the generator's project is {project} now", put_back=keyed.put_back)


def _scopes_changed(keyed: _Keyed) -> Rotate | None:
    asked, account = keyed.target.key_scopes, keyed.publication.account
    if account.scopes == asked or _overtaken(keyed.seen.entry, keyed.run):
        # As with the project: a later run has seen a newer annotation.
        return None
    now, before = ", ".join(asked) or "all", ", ".join(account.scopes) or "all"
    return Rotate("ScopesChanged", f"the key's scopes shall be {now}; they are {before}", put_back=keyed.put_back)


def _template_changed(keyed: _Keyed) -> Rotate | None:
    if not keyed.made_otherwise or _overtaken(keyed.seen.entry, keyed.run):
        # As with the project: a later run has seen a newer template.
        return None
    name = keyed.publication.account.name
    message = f"spec.target.template makes other data of the key than when account {name} was published"
    return Rotate("TemplateChanged", message, put_back=keyed.put_back)


def _account_gone(keyed: _Keyed) -> Rotate | None:
    seen, named = keyed.seen, keyed.named
    if named is None or seen.trouble is not None or not seen.asked or seen.named_at_openai is not None:
        return None
    if keyed.in_place and not names(named, keyed.publication):
        return None
    return Rotate("AccountGone", f"account {named.name[:64]!r} does not exist at OpenAI any more")


def _key_gone(keyed: _Keyed) -> Rotate | None:
    problem = keyed.seen.key_problem
    if problem is None:
        return None
    return Rotate("KeyGone", f"the key of account {keyed.publication.account.name} {problem}")


def _key_replaced(keyed: _Keyed) -> Rotate | None:
    account = keyed.publication.account
    changed = changed_values(keyed.target, account, keyed.secret)
    if not changed or keyed.placed_by_later_run:
        return None
    what = "the key" if account.rendered is None else "as it was written with the key"
    return Rotate("KeyMissing", f"the Secret's {_quoted(changed)} is not {what} of account {account.name}")


def _annotation_replaced(keyed: _Keyed) -> Rotate | None:
    account, named = keyed.publication.account, keyed.named
    if account.key_digest is None or named is None or names(named, keyed.publication):
        return None
    if keyed.in_place:
        return None
    return Rotate("KeyMissing", f"the annotation names another account than {account.name}, whose key is there")


# --- the Secret is as it should be, and gets a new key all the same ----------------------------------------------


def _forced(keyed: _Keyed) -> Rotate | None:
    if not keyed.run.force or (not keyed.run.repeat and forced_before(keyed.seen.entry, keyed.run)):
        return None
    return Rotate("Forced", "forced by --force")


def _requested(keyed: _Keyed) -> Rotate | None:
    names = open_requests(keyed.target, keyed.seen.entry, keyed.run)
    if not names:
        return None
    annotations = ", ".join(_ANNOTATIONS.get(name, name) for name in names)
    return Rotate("Requested", f"requested by a new value of {annotations}")


def _expiring(keyed: _Keyed) -> Rotate | None:
    expires_at = keyed.publication.account.expires_at
    if expires_at is None or keyed.run.started_at < renew_by(keyed.publication, expires_at):
        return None
    return Rotate("Expiring", f"the key expires at {format_time(expires_at)}", put_back=keyed.put_back)


def _retry(keyed: _Keyed) -> Rotate | None:
    entry = keyed.seen.entry
    unfinished = any(intent.requested_at > keyed.publication.at for intent in entry.unpublished)
    if not entry.failures.count and not unfinished:
        return None
    return Rotate("Retry", "the last attempt to rotate did not publish a key")


def _due(keyed: _Keyed) -> Rotate | None:
    interval, last = keyed.target.interval, keyed.seen.entry.last_rotated_at
    if interval is None:
        return None
    slack = min(interval / 10, LARGEST_SLACK)
    if last is not None and keyed.run.started_at < last + interval - slack:
        return None
    return Rotate("Due", f"the interval of {format_duration(interval)} has passed")


REASONS: tuple[Callable[[_Keyed], Rotate | None], ...] = (
    _key_missing,
    _project_changed,
    _account_gone,
    _key_gone,
    _key_replaced,
    _annotation_replaced,
    _scopes_changed,
    _template_changed,
    _forced,
    _requested,
    _expiring,
    _retry,
    _due,
)
"""In order of precedence: reasons that heal a Secret come before the requests of users and time."""
