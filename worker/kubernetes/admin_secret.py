"""The Secret with an admin key of the operator's, as the rotator reads and writes it. Pure.

Guarantees: no function returns or raises a data value but as `Hidden`.
The PATCH names one data key and one annotation of ours, under the Secret's resourceVersion.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from worker.kubernetes.reading import mapping_or_empty, mappings, version_of
from worker.model.admin_keys import AdminSecretView
from worker.model.hidden import Hidden
from worker.model.times import format_duration, parse_duration
from worker.model.values import JSON, PREFIX, Version

INTERVAL = PREFIX + "admin-key-interval"
GRACE = PREFIX + "admin-key-grace"
NAME = PREFIX + "admin-key-name"
"""The name at OpenAI of the key that the Secret has: for people. The worker goes by digests."""
SHORTEST_INTERVAL = timedelta(hours=1)
SHORTEST_GRACE = timedelta(hours=1)
"""A run that has read the former key may work with it for so long."""
DEFAULT_GRACE = timedelta(hours=24)


def admin_secret_view(obj: Mapping[str, Any], data_key: str) -> AdminSecretView | None:
    """The Secret for the stages; None if it holds no usable admin key."""
    value = _value(mapping_or_empty(obj.get("data")).get(data_key))
    if value is None:
        return None
    metadata = mapping_or_empty(obj.get("metadata"))
    annotations = mapping_or_empty(metadata.get("annotations"))
    interval, mistake = _duration(annotations, INTERVAL, SHORTEST_INTERVAL)
    grace, grace_mistake = _duration(annotations, GRACE, SHORTEST_GRACE)
    owners = [owner for owner in mappings(metadata.get("ownerReferences")) if owner.get("controller") is True]
    return AdminSecretView(
        version=version_of(obj),
        value=value,
        # A mistake does not withdraw the wish: it is told.
        interval=interval if INTERVAL not in annotations else interval or SHORTEST_INTERVAL,
        grace=grace or DEFAULT_GRACE,
        mistake="; ".join(filter(None, (mistake, grace_mistake))),
        grace_mistake=grace_mistake,
        immutable=obj.get("immutable") is True,
        owner=str(owners[0].get("kind", "its owner"))[:60] if owners else "",
    )


def digests_of_others(obj: Mapping[str, Any], data_key: str) -> dict[str, str]:
    """The digests of what the Secret's other data keys have, in the form of an admin key, by data key."""
    values = {name: _value(value) for name, value in mapping_or_empty(obj.get("data")).items() if name != data_key}
    return {name: value.digest() for name, value in values.items() if value is not None}


def admin_key_patch(version: Version, data_key: str, *, value: Hidden, name: str) -> JSON:
    """The one PATCH that publishes an admin key."""
    return {
        "metadata": {"resourceVersion": version.resource_version, "annotations": {NAME: name}},
        "data": {data_key: base64.b64encode(value.reveal().encode()).decode()},
    }


def _value(stored: object) -> Hidden | None:
    try:
        value = base64.b64decode(str(stored), validate=True).decode("ascii").strip() if stored is not None else ""
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Hidden(value) if value and value.isprintable() and " " not in value else None


def _duration(annotations: Mapping[str, Any], name: str, shortest: timedelta) -> tuple[timedelta | None, str]:
    """The duration, and what is wrong with it."""
    if name not in annotations:
        return None, ""
    try:
        found = parse_duration(annotations[name])
    except ValueError as error:
        return None, f"annotation {name} {error}"
    if found < shortest:
        return None, f"annotation {name} is shorter than {format_duration(shortest)}"
    return found, ""
