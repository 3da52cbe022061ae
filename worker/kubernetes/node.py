"""A node's JSON, as far as it tells whether its kubelet may have given an old Secret to containers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from worker.kubernetes.reading import mapping_or_empty, mappings, time_or_none
from worker.model.sightings import Node
from worker.model.values import Resource

NODES = Resource("", "v1", "nodes")
TTL = "node.alpha.kubernetes.io/ttl"
"""The TTL controller of Kubernetes sets it: seconds for which a kubelet may give a cached Secret."""
DEFAULT_TTL = timedelta(seconds=60)
"""A kubelet's, where the annotation is missing."""
LONGEST_TTL = timedelta(hours=1)
"""The controller sets 300 s at most. A longer one, which somebody else has set, is as long as that."""
_VERSION = re.compile(r"v1\.(\d{1,4})\.")


def node_view(node: Mapping[str, Any]) -> Node:
    metadata, status = mapping_or_empty(node.get("metadata")), mapping_or_empty(node.get("status"))
    version = _VERSION.match(str(mapping_or_empty(status.get("nodeInfo")).get("kubeletVersion")))
    return Node(_ready_since(status), _ttl(metadata), int(version[1]) if version else 0)


def _ready_since(status: Mapping[str, Any]) -> datetime | None:
    for condition in mappings(status.get("conditions")):
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            return time_or_none(condition.get("lastTransitionTime"))
    return None


def _ttl(metadata: Mapping[str, Any]) -> timedelta:
    text = str(mapping_or_empty(metadata.get("annotations")).get(TTL, ""))
    seconds = int(text) if re.fullmatch(r"\d{1,9}", text) else None
    return DEFAULT_TTL if seconds is None else min(timedelta(seconds=seconds), LONGEST_TTL)
