"""What everybody's acts share: the stage, the oracle, requests as users make them, and "after a while"."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sandbox.kubernetes.setup import send
from tests.simulation.oracle import Oracle
from tests.simulation.stage import Stage, external_secret_path
from worker.model.values import Ref

Act: TypeAlias = Callable[[random.Random], str]
"""Does something by the seed's chance, and says what it did."""


@dataclass(frozen=True)
class Hands:
    stage: Stage
    oracle: Oracle
    later: Callable[[float, Act, random.Random], None]
    """Do something after so many seconds, unless all is calm by then."""

    def send(self, method: str, path: str, body: object = None) -> Any:
        return send(self.stage.kubernetes, method, path, body=body)

    def change_source(self, target: Ref, spec: Mapping[str, Any]) -> None:
        """Change the ExternalSecret of a target: it may want a new key after that."""
        self.oracle.license(target)
        self.send("PATCH", external_secret_path(target.name), {"spec": dict(spec)})
