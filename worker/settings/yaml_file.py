"""Read a YAML file of the operator's.

Guarantees:
- An empty file is a mistake.
- A duplicate key is a mistake, because the parser would silently drop one of the two.
- An error message holds a line number and no text of the file, in which somebody may have put a key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yaml import MappingNode, MarkedYAMLError, SafeLoader, YAMLError, load

_TWICE = "has a key twice in the map"


class _Loader(SafeLoader):
    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if len(names) != len(set(names)):
            raise MarkedYAMLError(problem=_TWICE, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of the file. Raises ValueError with a message fit for a user."""
    try:
        document = load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a safe one)
    except OSError as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from None
    except MarkedYAMLError as error:
        ours = _TWICE if error.problem == _TWICE else "is not YAML"
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise ValueError(f"{ours}{line}") from None
    except (YAMLError, ValueError, RecursionError):  # a date that is none, say
        raise ValueError("is not YAML") from None
    if document is None:
        raise ValueError("is empty")
    return document
