"""`audit`: gather what is recorded and what is at OpenAI, hold one against the other, and show it.

Guarantees: `audit` writes nothing, neither in the cluster nor at OpenAI.
Each project is asked about with the admin keys alone that generators, grants or the ledger name for it.
The fallback admin key asks about nothing.
One project that does not answer hides no other.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from worker.commands.audit.findings import Finding, FindingKind, Policy, findings_of
from worker.commands.audit.inventory import (
    RECORDED,
    Forms,
    Line,
    ProjectFacts,
    Records,
    Standing,
    accesses,
    lines_of,
)
from worker.commands.audit.page import page_pieces
from worker.commands.audit.report import Audit, AuditedAdminKey, AuditedLine, exit_code, summary
from worker.commands.audit.words import as_text, json_pieces
from worker.commands.session import RunWorld, Session, World, open_ledger
from worker.discover.listing import discover
from worker.errors import Refused, RotatorError, about
from worker.ledger.store import Ledger
from worker.model.audited import AuditEvent
from worker.model.entries import Entry, Unreadable
from worker.model.hidden import redacted
from worker.model.sightings import Listing
from worker.model.targets import AdminKeyRef, Project, ProjectAccess
from worker.model.values import Ref
from worker.openai.limiter import Limiter
from worker.openai.projects import Projects
from worker.plan.admin_keys import EXPIRING, admin_key_notices
from worker.report import termination
from worker.runtime.for_each import Crash, for_each
from worker.runtime.slots import Slots
from worker.runtime.stop import Stop
from worker.settings.options import AuditRequest, Options

_AT_ONCE = 50
"""Ids in one question to the audit log: they stand in the URL."""
_MADE = frozenset({"service_account.created", "api_key.created"})
_DELETED = frozenset({"service_account.deleted", "api_key.deleted"})


async def execute(session: Session) -> int:
    """Audit and show the result. Raises OutOfReach as `audit` does."""
    settings, stop = session.settings, session.stop()
    async with session.world(stop) as world:
        found = await audit(settings.options, settings.audit, world, stop=stop)
    code = exit_code(found, strict=settings.strict)
    _show(_pieces(found, settings.output, as_table=settings.as_table))
    termination.write(settings.summary_file, {**summary(found), "exit_code": code})
    return code


def _pieces(found: Audit, output: str | None, *, as_table: bool) -> Iterable[str]:
    if as_table:
        return [as_text(found) + "\n"]
    return page_pieces(found) if output == "html" else json_pieces(found)


def _show(pieces: Iterable[str]) -> None:
    """Piece by piece: a page about ten thousand accounts has megabytes."""
    for piece in pieces:
        sys.stdout.write(redacted(piece))


async def audit(options: Options, wanted: AuditRequest, world: World, *, stop: Stop) -> Audit:
    """Look at everything. Raises OutOfReach where the cluster or the ledger cannot be used at all."""
    ledger, running = await open_ledger(options, world)
    slots = Slots(options.concurrency)
    projects = Projects(
        running.cluster,
        running.openai,
        Limiter(running.clock, slots, stop),  # a human does not wait out the pauses of runs
        slots=slots,
        clock=running.clock,
        allowed_hosts=options.allowed_hosts,
        recorded=ledger.recorded,
    )
    return await _Auditor(options, wanted, running, ledger, projects, slots, stop).audit()


@dataclass(slots=True)
class _Auditor:
    options: Options
    wanted: AuditRequest
    world: RunWorld
    ledger: Ledger
    projects: Projects
    slots: Slots
    stop: Stop
    notes: list[str] = field(default_factory=list)

    async def audit(self) -> Audit:
        # The ledger is read before and after the lists: a run records an account before it makes it, and drops it
        # after it is gone.
        before = await self.ledger.read_all()
        discovered = await discover(self.world.cluster, self.options)
        named = accesses(discovered.generators, self.options.central_keys, _entries(before), self.options.namespaces)
        done = await for_each(named.values(), self._facts, slots=self.slots, stop=self.stop)
        facts = [item.value for item in done if isinstance(item.value, ProjectFacts)]
        unasked = [
            (item.item[0].project, _why(item.value)) for item in done if not isinstance(item.value, ProjectFacts)
        ]
        after = await self.ledger.read_all()
        self.notes += [
            f"ledger entry {entry.name} cannot be read, so its accounts look unrecorded: {entry.message}"
            for entry in after.values()
            if isinstance(entry, Unreadable)
        ]
        now = self.world.clock.now()
        records = Records.of(_entries(before), _entries(after))
        forms = Forms.of(discovered.generators)
        lines = [line for one in facts for line in lines_of(one, records, forms, now=now)]
        since = now - self.wanted.since if self.wanted.since is not None else None
        events = await self._events(facts, lines, self.wanted.since)
        policy = Policy(now, self.wanted.unused, {target.ref: target for target in discovered.targets})
        return Audit(
            at=now,
            ledger=self.ledger.namespace,
            unused=self.wanted.unused,
            since=since,
            lines=tuple(_audited(line, policy, events) for line in sorted(lines, key=_order)),
            admin_keys=tuple(await self._admin_keys(named.values())),
            entries={entry.target: entry for entry in _entries(after) if self._in_scope(entry.target)},
            unasked=tuple(unasked),
            notes=tuple(dict.fromkeys(self.notes)),
            projects=len(named),
        )

    def _in_scope(self, ref: Ref) -> bool:
        return not self.options.namespaces or ref.namespace in self.options.namespaces

    async def _facts(self, ways: tuple[ProjectAccess, ...]) -> ProjectFacts | str:
        """What OpenAI lists of a project, asked with the first admin key that may ask; else why none may."""
        problems: list[str] = []
        for access in ways:
            try:
                return await self._listed(access)
            except RotatorError as error:
                # Whoever reads it is told the project beside it.
                problems.append(about(access, error).removesuffix(f"; asked about project {access.project}"))
        return "; ".join(dict.fromkeys(problems))

    async def _listed(self, access: ProjectAccess) -> ProjectFacts:
        try:
            listing = await self.projects.listing(access)
            return ProjectFacts(access, listing, tuple(await self.projects.project_keys(access)))
        except Refused as error:
            if await self.projects.archived(access, error):
                return ProjectFacts(access, Listing.of(self.world.clock.now(), {}), ())
            raise

    # --- the audit log

    async def _events(
        self, facts: Collection[ProjectFacts], lines: Collection[Line], since: timedelta | None
    ) -> Mapping[str, list[AuditEvent]]:
        """What the audit log says of accounts and keys that need an explanation, by their ids."""
        if since is None:
            return {}
        asked: defaultdict[Project, set[str]] = defaultdict(set)
        for line in lines:
            asked[line.project].update(_unexplained(line))
        start = self.world.clock.now() - since
        questions = [(one.access, batch) for one in facts for batch in _batches(sorted(asked[one.access.project]))]

        async def ask(question: tuple[ProjectAccess, list[str]]) -> list[AuditEvent]:
            access, ids = question
            return await self.projects.audit_events(access, ids, since=start)

        found: defaultdict[str, list[AuditEvent]] = defaultdict(list)
        for item in await for_each(questions, ask, slots=self.slots, stop=self.stop):
            if isinstance(item.value, Crash):
                self.notes.append(_unread(item.item[0], item.value))
                continue
            for event in item.value:
                found[event.resource].append(event)
        return found

    # --- the admin keys

    async def _admin_keys(self, named: Iterable[tuple[ProjectAccess, ...]]) -> list[AuditedAdminKey]:
        """Every admin key that was named, whether it was needed or not."""
        used: defaultdict[AdminKeyRef, list[ProjectAccess]] = defaultdict(list)
        for access in (access for ways in named for access in ways):
            used[access.admin_key].append(access)

        async def look(ref: AdminKeyRef) -> AuditedAdminKey:
            projects = tuple(access.project for access in used[ref])
            found = await self.projects.admin_key_facts(used[ref][0])
            if found is None:
                return AuditedAdminKey(ref, projects, problem="OpenAI lists no single key with both ends of its value")
            now = self.world.clock.now()
            findings = tuple(
                Finding(
                    FindingKind.ADMIN_KEY_EXPIRING if notice.reason == EXPIRING else FindingKind.ADMIN_KEY_OLD,
                    notice.message,
                )
                for notice in admin_key_notices(ref, found, now)
            )
            return AuditedAdminKey(ref, projects, found, findings=findings)

        done = await for_each(sorted(used), look, slots=self.slots, stop=self.stop)
        return [
            AuditedAdminKey(item.item, tuple(access.project for access in used[item.item]), problem=item.value.message)
            if isinstance(item.value, Crash)
            else item.value
            for item in done
        ]


def _unread(access: ProjectAccess, failure: Crash) -> str:
    """OpenAI has one answer for a log that is off and for any other refusal."""
    why = failure.message
    if failure.reason in ("OpenAIRefused", "OpenAIForbidden", "OpenAINotFound"):
        why = f"somebody has to turn it on at OpenAI, and this key must be allowed to read it ({failure.reason})"
    return f"the audit log was not read with {access.admin_key}: {why}"


def _why(failure: Crash | str) -> str:
    return failure.message if isinstance(failure, Crash) else failure


def _entries(entries: Mapping[Ref, Entry | Unreadable]) -> Iterator[Entry]:
    return (entry for entry in entries.values() if isinstance(entry, Entry))


def _order(line: Line) -> tuple[object, ...]:
    """Targets by name, then what belongs to none, project by project."""
    target = line.target
    place = (0, target.namespace, target.name) if target is not None else (1, line.project.host, line.project.id)
    begun = line.begun_at
    return (*place, begun.timestamp() if begun is not None else 0.0, line.account_name)


def _unexplained(line: Line) -> Iterator[str]:
    """Ids of what is unrecorded, gone, or a key that is not ours."""
    if line.standing not in RECORDED and line.standing is not Standing.USERS:
        yield from (id for id in (line.account_id, line.key.id if line.key is not None else "") if id)
    elif line.standing is Standing.USERS or (line.key is not None and not line.own):
        yield from (id for id in (line.key.id if line.key is not None else "",) if id)
    elif line.standing is Standing.GONE or line.key is None:
        item = line.record.item if line.record is not None else None
        yield from (id for id in (line.account_id, item.account.key_id if item is not None else None) if id)


def _batches(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def _audited(line: Line, policy: Policy, events: Mapping[str, list[AuditEvent]]) -> AuditedLine:
    key_id = line.key.id if line.key is not None else None
    if key_id is None and line.record is not None:
        key_id = line.record.item.account.key_id
    told = [event for id in (line.account_id, key_id) if id for event in events.get(id, ())]
    # Of an account with its key the account's own event comes first; of another's key the key's.
    if line.key is not None and not line.own and line.standing in RECORDED:
        told = [event for event in told if event.resource == key_id]
    made = next((event for event in told if event.kind in _MADE), None)
    deleted = next((event for event in told if event.kind in _DELETED), None)
    return AuditedLine(line, findings_of(line, policy), made, deleted)
