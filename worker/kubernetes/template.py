"""The texts of `spec.target.template.data` as External Secrets Operator's engine v2 would make them. Pure.

That engine is Go's `text/template`. Of its language one action is honoured: `{{ .NAME }}`, NAME the generated data key.
Space inside the braces has no meaning there; `{{- ` and ` -}}` take the space before or after them from the text.

Guarantee: a text with any other action raises `Mistake`, which tells its place and the first word that is not honoured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from worker.kubernetes.fields import Mistake, choice
from worker.model.names import DATA_KEY
from worker.model.targets import MergePolicy
from worker.model.templates import KEY_ALONE, Pieces, Template

WHERE = "spec.target.template"
LARGEST_TEMPLATE = 65_536
"""Bytes of memory for a template's data keys and texts, which the run keeps for each target: 64,000 letters or so."""
MOST_DATA_KEYS = 50
"""The Secret's annotation has a digest for each, and a Secret's annotations have 256 kB in all."""

_SPACE = " \t\r\n"
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
"""What Go takes for a field's name after a dot, of the characters that a data key may have."""
_QUOTED = re.compile(r"""\"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|`[^`]*`?|/\*.*""", re.DOTALL)
_WORD = re.compile(r"[^\s|()=,]+")


def template_of(template: Mapping[str, Any], data_key: str) -> Template | None:
    """The data values that a template asks for; None: it asks for none. `data_key`: the generated one.

    With mergePolicy Replace these are the template's alone, with Merge the generated one is beside them.
    """
    data = template.get("data")
    if not data:
        return None
    if not isinstance(data, Mapping):
        raise Mistake(f"{WHERE}.data", f"is larger than {LARGEST_TEMPLATE // 1024} kB, or no map of texts")
    if len(data) > MOST_DATA_KEYS:
        raise Mistake(f"{WHERE}.data", f"has more than {MOST_DATA_KEYS} data keys")
    if template.get("engineVersion") not in (None, "", "v2"):
        raise Mistake(f"{WHERE}.engineVersion", "must be v2: templates of other engines are not honoured")
    policy = choice(MergePolicy, f"{WHERE}.mergePolicy", template.get("mergePolicy"), default=MergePolicy.REPLACE)
    values = {data_key: KEY_ALONE} if policy is MergePolicy.MERGE else {}
    values |= {name: _value(name, text, data_key) for name, text in data.items()}
    if all(len(pieces) == 1 for pieces in values.values()):
        problem = f"has no value with {{{{ .{data_key} }}}}, so with mergePolicy {policy} the key would be nowhere"
        raise Mistake(f"{WHERE}.data", problem)
    return Template(values)


def _value(name: str, text: object, variable: str) -> Pieces:
    where = f"{WHERE}.data[{name[:80]!r}]"
    if not DATA_KEY.match(name) or name == "." or name.startswith(".."):
        raise Mistake(where, "must be a key that a Secret may have")
    if not isinstance(text, str):
        raise Mistake(where, "must be a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Mistake(where, "must be a text") from None
    return pieces_of(text, variable, where)


def pieces_of(text: str, variable: str, where: str) -> Pieces:
    """The texts around the key. Raises Mistake where anything but the key is asked for."""
    action = re.compile(rf"(-[{_SPACE}])?[{_SPACE}]*\.{re.escape(variable)}[{_SPACE}]*?([{_SPACE}]-)?\}}\}}")
    pieces: list[str] = []
    rest, trimmed = text, False
    while True:
        piece, opened, rest = rest.partition("{{")
        found = action.match(rest) if opened and _FIELD.match(variable) else None
        if opened and found is None:
            raise _unsupported(rest, variable, f"{where}, line {text[: len(text) - len(rest)].count(chr(10)) + 1},")
        piece = piece.lstrip(_SPACE) if trimmed else piece
        if found is None:
            return (*pieces, piece)
        pieces.append(piece.rstrip(_SPACE) if found[1] else piece)
        rest, trimmed = rest[found.end() :], found[2] is not None


def _unsupported(rest: str, variable: str, where: str) -> Mistake:
    """What is wrong with an action, from the text behind its braces on."""
    inside, closed, _ = rest.partition("}}")
    if not _FIELD.match(variable):
        problem = f"has an action: give the data key {variable!r} a name of letters, digits and _ with a rewrite"
        return Mistake(where, problem, "UnsupportedField")
    # Quoted text is not told: it may be somebody's password.
    words = [word for word in _WORD.findall(_QUOTED.sub(" ", inside)) if word not in (f".{variable}", "-")]
    problem = f"has {words[0][:40]!r} in braces" if words else "has other braces"
    problem = problem if closed else "has braces that are not closed"
    return Mistake(where, f"{problem}: text and {{{{ .{variable} }}}} alone are honoured", "UnsupportedField")
