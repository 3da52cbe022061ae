"""What `adopt` found, for people and for scripts. Pure."""

from __future__ import annotations

from worker.commands.adopt.judge import Adopted, Finding, Verdict
from worker.model.values import JSON
from worker.report.table import table

HEADERS = ("NAMESPACE", "SECRET", "ACCOUNT", "ID", "VERDICT", "WHY")
NOTHING = "nothing to adopt"


def as_text(adopted: Adopted) -> str:
    """A table; below it the notes, the human's remaining steps, and how to record the shown accounts."""
    rows = [_row(finding, adopted.recorded) for finding in adopted.findings]
    lines = [table(HEADERS, rows)] if rows else [NOTHING]
    lines += [*adopted.notes, *(adoption.advice for adoption in adopted.adoptions if adoption.advice)]
    if not adopted.recorded and any(finding.verdict is Verdict.RECORD for finding in adopted.findings):
        lines.append("nothing was written: --yes records what is marked `record`")
    return "\n".join(lines)


def as_json(adopted: Adopted) -> JSON:
    """The same as values; `verdict` is `recorded` where `adopt` has written it."""
    return {
        "findings": [
            {
                "namespace": finding.target.namespace,
                "secret": finding.target.name,
                "account": finding.name,
                "id": finding.id,
                "verdict": _verdict(finding, adopted.recorded),
                "reason": finding.reason or None,
                "message": finding.message,
            }
            for finding in adopted.findings
        ],
        "notes": list(adopted.notes),
        "advice": [adoption.advice for adoption in adopted.adoptions if adoption.advice],
    }


def _row(finding: Finding, recorded: bool) -> tuple[str, ...]:
    why = f"{finding.reason}: {finding.message}" if finding.reason else finding.message
    target = finding.target
    verdict = _verdict(finding, recorded)
    return (target.namespace, target.name, (finding.name or "-")[:64], finding.id or "-", verdict, why)


def _verdict(finding: Finding, recorded: bool) -> str:
    return "recorded" if recorded and finding.verdict is Verdict.RECORD else finding.verdict.value
