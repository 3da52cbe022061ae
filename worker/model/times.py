"""Times and durations as Kubernetes writes them. Pure.

Guarantee: an invalid time or duration raises ValueError with a message that quotes at most 40 characters.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta

_NANOSECONDS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "ns": 1,
}
_TERM = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?(h|ms|m|s|us|µs|ns)")
_LONGEST_TEXT = 64
LONGEST = timedelta(days=3650)
"""A longer duration counts as a mistake."""
_LONGEST_NANOSECONDS = LONGEST // timedelta(microseconds=1) * 1000


def parse_duration(text: object) -> timedelta:
    """A Go duration (`90s`, `1h30m`, `0`), as metav1.Duration takes it; fractions of a microsecond are cut off.

    It is not negative, is at most ten years, and has at most 64 characters.
    """
    # durationpy, which comes with the Kubernetes client, also accepts days, weeks and years. Kubernetes refuses them.
    if not isinstance(text, str):
        raise ValueError("is not a duration such as 90s or 1h30m")
    if text == "0":
        return timedelta(0)
    # Whole numbers: the generator's CRD (`manifests/crds/openai.yaml`) accepts the same durations.
    # A sum of floats would place the limit of ten years elsewhere.
    # Whole numbers: the generator's CRD (`manifests/crds/openai.yaml`) accepts the same durations.
    # A sum of floats would place the limit of ten years elsewhere.
    nanoseconds, position = 0, 0
    while position < len(text) <= _LONGEST_TEXT:
        term = _TERM.match(text, position)
        if term is None:
            raise ValueError(f"{text[:40]!r} is not a duration such as 90s or 1h30m")
        unit = _NANOSECONDS[term[3]]
        nanoseconds += int(term[1]) * unit + int((term[2] or "").ljust(9, "0")) * unit // 10**9
        position = term.end()
    if not text or len(text) > _LONGEST_TEXT or nanoseconds > _LONGEST_NANOSECONDS:
        raise ValueError(f"{text[:40]!r} is not a duration of at most ten years, such as 90s or 1h30m")
    return timedelta(microseconds=nanoseconds // 1000)


def format_duration(duration: timedelta) -> str:
    """The shortest exact form in hours, minutes and seconds: `1h30m`; fractions of a second are dropped."""
    seconds = int(duration.total_seconds())
    parts = [
        f"{n}{unit}" for n, unit in ((seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s")) if n
    ]
    return "".join(parts) or "0s"


def parse_time(text: object) -> datetime:
    """An RFC 3339 time with a zone, as an aware datetime in UTC."""
    if not isinstance(text, str):
        raise ValueError("is not a time such as 2026-11-24T10:00:00Z")
    return _parsed(text)


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> datetime:
    """Cached: one run rotates many targets in the same second, and each entry has a time twice or more."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is not a time such as 2026-11-24T10:00:00Z") from None
    raise ValueError(f"{text[:40]!r} has no time zone")


@functools.lru_cache(maxsize=4096)
def format_time(time: datetime) -> str:
    """RFC 3339 in UTC, whole seconds: the precision of metav1.Time."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


_FIRST_DELAY = timedelta(minutes=1)


_LONGEST_DELAY = timedelta(hours=1)


def pause_after(count: int) -> timedelta:
    """The pause after so many failures one after the other, at least one."""
    doubled: timedelta = _FIRST_DELAY * 2 ** min(count - 1, 10)
    return min(doubled, _LONGEST_DELAY)


def next_attempt(until: datetime | None) -> str:
    """The end of a message about an action that did not happen."""
    return f"; next attempt {'with the next run' if until is None else 'at ' + format_time(until)}"
