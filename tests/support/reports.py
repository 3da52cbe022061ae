"""Outcomes and reports of runs."""

from __future__ import annotations

from typing import Any

from tests.support.builders import RUN
from worker.model.outcomes import Outcome, Report, Result, RetireOutcome
from worker.model.values import Ref


def outcome(result: Result = Result.KEPT, secret: str = "creds", **more: Any) -> Outcome:
    values: dict[str, Any] = {"reason": "Why", "message": "words"}
    return Outcome(Ref("default", secret), result, **(values | more))


def report(*outcomes: Outcome, retired: tuple[RetireOutcome, ...] = (), **more: Any) -> Report:
    values: dict[str, Any] = {"unused": (), "seconds": 1.0}
    return Report(RUN, outcomes, retired, **(values | more))
