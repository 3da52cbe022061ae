"""What is said of an admin key by its age and its end. Pure; no clock of its own."""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.model.audited import AdminKeyFacts
from worker.model.outcomes import Notice
from worker.model.targets import AdminKeyRef
from worker.model.times import format_time

ENDS_SOON = timedelta(days=14)
OLD = timedelta(days=180)
EXPIRING, AGED, UNLISTED = "AdminKeyExpiring", "AdminKeyOld", "AdminKeyNotListed"


def admin_key_notices(ref: AdminKeyRef, facts: AdminKeyFacts, now: datetime) -> list[Notice]:
    """The warnings about an admin key. The texts name times, not spans: they stay the same from run to run."""
    notices = []
    if facts.expires_at is not None and facts.expires_at - now < ENDS_SOON:
        message = (
            f"the admin key in {ref} ends at {format_time(facts.expires_at)}; without it no key of its projects is "
            "rotated or deleted: put a new one into the Secret"
        )
        notices.append(Notice(EXPIRING, message))
    if facts.created_at is not None and now - facts.created_at > OLD:
        message = f"the admin key in {ref} is of {format_time(facts.created_at)}, so older than {OLD.days} days"
        notices.append(Notice(AGED, message))
    return notices


def not_listed(ref: AdminKeyRef, why: str) -> Notice:
    """Said where OpenAI does not tell when an admin key ends."""
    return Notice(UNLISTED, f"when the admin key in {ref} ends is not known: {why}")
