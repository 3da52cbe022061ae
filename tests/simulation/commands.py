"""The commands that histories play, each as a value that executes itself and says in words what it did."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tests.support.scene import RecordingWatcher
from worker.commands.adopt.command import adopt
from worker.commands.revoke.command import revoke
from worker.commands.run import run
from worker.commands.session import World
from worker.model.outcomes import Outcome
from worker.model.values import Ref
from worker.runtime.stop import Stop
from worker.settings.options import AdoptRequest, Options


@dataclass
class Told:
    """`lines`: for the trace. `reasons`: reason and message of everything."""

    lines: list[str] = field(default_factory=list)
    reasons: list[tuple[str, str]] = field(default_factory=list)
    outcomes: Collection[Outcome] = ()


class RunCommand:
    async def execute(self, options: Options, world: World, stop: Stop) -> Told:
        """`openai-key-rotator run`."""
        report = await run(options, world, stop, watcher=RecordingWatcher())
        told = Told(outcomes=report.outcomes)
        for outcome in report.outcomes:
            told.reasons.append((outcome.reason, outcome.message))
            told.lines.append(f"{outcome.target} {outcome.result} {outcome.reason}: {outcome.message}")
        for item in report.retired:
            told.reasons.append((item.reason, item.message))
            if item.deleted or item.message:
                told.lines.append(f"{item.target} retired {item.deleted} {item.reason} {item.message}")
        return told


class AdoptCommand:
    async def execute(self, options: Options, world: World, stop: Stop) -> Told:
        """`openai-key-rotator adopt --yes`."""
        adopted = await adopt(options, AdoptRequest(yes=True), world, stop=stop)
        reasons = [(finding.reason, finding.message) for finding in adopted.findings]
        lines = [f"adopt {f.target} {f.verdict} {f.id} {f.name} {f.reason}: {f.message}" for f in adopted.findings]
        return Told(lines, reasons + [("", note) for note in adopted.notes])


@dataclass(frozen=True, slots=True)
class Revoke:
    target: Ref
    without_successor: bool = False

    async def execute(self, options: Options, world: World, stop: Stop) -> Told:
        """`openai-key-rotator revoke --yes`."""
        told = Told()
        without = self.without_successor
        found = await revoke(options, self.target, world, stop=stop, say=told.lines.append, without_successor=without)
        told.lines.append(f"revoke {self.target}: new {found.successor}, deleted {found.deleted}, left {found.left}")
        told.reasons += [("", text) for _, text in found.left] + [("", found.why_none or "")]
        return told


Command = RunCommand | AdoptCommand | Revoke
RUN, ADOPT = RunCommand(), AdoptCommand()
