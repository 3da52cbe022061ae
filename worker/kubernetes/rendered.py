"""The stored form of what is kept of a template's data values: in the ledger and in the Secret's annotation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.kubernetes.reading import Malformed, mapping, present
from worker.model.names import DATA_KEY, ID
from worker.model.templates import Placed, Rendered
from worker.model.values import JSON


def rendered_object(rendered: Rendered | None) -> JSON | None:
    if rendered is None:
        return None
    values = {data_key: present(digest=placed.digest, keyAt=placed.at) for data_key, placed in rendered.values.items()}
    return {"template": rendered.template, "values": values}


def read_rendered(stored: Mapping[str, Any]) -> Rendered | None:
    """The field `rendered` of an account or annotation; None: there is none. Raises Malformed."""
    if "rendered" not in stored:
        return None
    found = mapping(stored, "rendered")
    values = mapping(found, "values")
    if not values or not all(isinstance(data_key, str) and DATA_KEY.match(data_key) for data_key in values):
        raise Malformed("rendered.values does not name data keys")
    template = _digest(found, "template")
    if template is None:
        raise Malformed("rendered.template is missing")
    return Rendered(template, {data_key: _placed(mapping(values, data_key)) for data_key in values})


def _placed(stored: Mapping[str, Any]) -> Placed:
    at = stored.get("keyAt")
    if at is not None and (not isinstance(at, int) or isinstance(at, bool) or at < 0):
        raise Malformed("rendered.values: keyAt is not a number of characters")
    return Placed(at, _digest(stored, "digest"))


def _digest(stored: Mapping[str, Any], field: str) -> str | None:
    found = stored.get(field)
    if found is not None and not (isinstance(found, str) and ID.match(found)):
        raise Malformed(f"rendered: {field} is not a digest")
    return found
