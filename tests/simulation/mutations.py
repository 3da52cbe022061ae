"""Small mistakes in the worker's code, each of which breaks an invariant: the simulation has to catch every one.

A mutation is a few lines of source replaced by others. Guarantee: one whose lines are not in the source any more is an
error, so that the list stays true.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.scene import ROOT

SEEDS = 600
"""Histories within which each is caught."""


@dataclass(frozen=True, slots=True)
class Mutation:
    invariant: str
    name: str
    module: str
    changes: tuple[tuple[str, str], ...]


def _mutation(invariant: str, name: str, module: str, *changes: tuple[str, str]) -> Mutation:
    return Mutation(invariant, name, module, changes)


MUTATIONS = (
    _mutation(
        "I1",
        "the intent is written after the create",
        "rotation",
        (
            "            entry, written_at = await self._intend(target, seen.entry, account)\n",
            "            minted = await self._mint(target, account, admin_key)\n"
            "            entry, written_at = await self._intend(target, seen.entry, account)\n",
        ),
        (
            "            minted = await self._mint(target, account, admin_key)\n            known = minted.account\n",
            "            known = minted.account\n",
        ),
    ),
    _mutation(
        "I1",
        "an intent that took long to write is relied upon",
        "rotation",
        ("            if self.clock.monotonic() - begun <= FRESH:\n", "            if True:\n"),
    ),
    _mutation(
        "I1",
        "a create whose fate is unknown is sent again",
        "openai_admin",
        ('        if method == "POST":\n            return await call()\n', "        repeatable = True\n"),
    ),
    _mutation(
        "I2",
        "the Secret is patched whatever its resourceVersion is",
        "codec",
        ('    metadata["resourceVersion"] = secret.version.resource_version\n', ""),
    ),
    _mutation(
        "I2",
        "after a conflict the key at hand is simply applied again",
        "rotation",
        (
            "                secret = await self._plan_again(target, entry, name)\n",
            "                secret = await self.observer.secret(target.ref)\n",
        ),
    ),
    _mutation(
        "I2",
        "the claim is not looked at before the key is published",
        "rotation",
        ("            await self._still_ours(target, name, written_at)\n", ""),
    ),
    _mutation(
        "I2",
        "a key is published before OpenAI accepts it",
        "rotation",
        ("            await self._verify(minted, written_at)\n", ""),
    ),
    _mutation(
        "I3",
        "an account is deleted without a look at the Secret",
        "retirement",
        (
            "        return seen, _Sight(entry.target, secret, at)\n",
            "        return seen, _Sight(entry.target, None, at + 1e9)\n",
        ),
        ("        seen, secret = await self.observer.reconciled(entry)\n", "        seen, secret = entry, None\n"),
    ),
    _mutation(
        "I3",
        "a look at the Secret counts however long ago it was",
        "retirement",
        ("        while self.clock.monotonic() - sight.at > FRESH:", "        while False:"),
    ),
    _mutation(
        "I3",
        "a look that failed counts",
        "retirement",
        (
            "            sight.secret = await self.observer.secret(sight.target)\n            sight.at = at",
            "            sight.at = at\n            sight.secret = await self.observer.secret(sight.target)\n            pass",
        ),
    ),
    _mutation(
        "I3",
        "the grace runs from the publication, not from its end",
        "planning",
        ("    return max(previous.superseded_at + grace,", "    return max(previous.at + grace,"),
    ),
    _mutation(
        "I3",
        "what was perhaps published goes without a grace",
        "retirement",
        ("        if not intent.refused:\n", "        if False:\n"),
    ),
    _mutation(
        "I3",
        "nobody is asked who holds a key",
        "retirement",
        (
            "        consumers = await self.pods.consumers(entry.target, not_before=ripe)\n",
            "        consumers = ()\n",
        ),
    ),
    _mutation(
        "I3",
        "OpenAI is not asked when a key was last used",
        "retirement",
        (
            "        used = await self.projects.key_last_used(account.access, account.key_id) if account.key_id else None\n",
            "        used = None\n",
        ),
    ),
    _mutation(
        "I3",
        "an annotation alone decides which account is the target's",
        "bookkeeping",
        (
            "            if intent.account.id is None and named_at_openai != named.name:\n                continue\n",
            "",
        ),
    ),
    _mutation(
        "I4",
        "404 is taken for gone without a list",
        "projects",
        (
            "            if account_id not in (await self.listing(access)).accounts:\n                return True\n",
            "            return True\n",
        ),
    ),
    _mutation(
        "I4",
        "any answer of success is taken for a deletion",
        "openai_admin",
        (
            '        answer = await self._json("DELETE", path, admin_key, "delete account", repeatable=True)\n'
            '        if answer.get("deleted") is not True:\n'
            '            raise _unintelligible("delete account", "does not say that it is deleted")\n',
            "        await self._retry(\n"
            '            lambda: self._send("DELETE", path, admin_key, "delete account"), repeatable=True\n'
            "        )\n",
        ),
    ),
    _mutation(
        "I4",
        "only the first page of a list is read",
        "openai_admin",
        ("            if not more:\n", "            if True:\n"),
    ),
    _mutation(
        "I4",
        "one list lets an intent go",
        "bookkeeping",
        (
            "    if intent.missed_at is not None and list_begun_at >= intent.missed_at + LISTS_APART:\n",
            "    if True:\n",
        ),
    ),
    _mutation(
        "I4",
        "lists that began before the claim had ended count",
        "retirement",
        (
            "            listing = await self.projects.listing(account.access, not_before=intent.claimed_until)\n",
            "            listing = await self.projects.listing(account.access)\n",
        ),
        (
            "        listing = await self.projects.listing(account.access, not_before=appeared)\n",
            "        listing = await self.projects.listing(account.access)\n",
        ),
        ("        if claim is not None:\n", "        if False:\n"),
        ("ended_claims(seen, self.clock.now())", "seen.unpublished"),
        ("ended_claims(entry, now)", "entry.unpublished"),
    ),
    _mutation(
        "I4",
        "what others wrote is forgotten after a conflict",
        "ledger",
        (
            "                entry = await self.read(entry.target) or replace(entry, version=None, stored={})\n",
            "                fresh = await self.read(entry.target)\n"
            "                entry = replace(\n"
            "                    entry,\n"
            "                    version=fresh.version if fresh else None,\n"
            "                    stored=fresh.stored if fresh else {},\n"
            "                )\n",
        ),
    ),
    _mutation(
        "I4",
        "an account that was made twice is forgotten with the first",
        "retirement",
        (
            "        return sorted({*listing.ids_of(account.name), *([account.id] if account.id is not None else [])})\n",
            "        return [account.id] if account.id is not None else list(listing.ids_of(account.name))\n",
        ),
        ("            for account, twin in self._twins(seen):\n", "            for account, twin in ():\n"),
    ),
    _mutation(
        "I5",
        "claims of other runs are ignored",
        "model",
        (
            "        running = [intent.claimed_until for intent in self.unpublished if intent.claimed_until > now]\n",
            "        running: list[datetime] = []\n",
        ),
    ),
    _mutation(
        "I5",
        "requests that were served are not noted",
        "bookkeeping",
        ("        honoured={**entry.honoured, **target.requests},\n", ""),
    ),
    _mutation(
        "I5",
        "the interval runs from the first publication",
        "bookkeeping",
        ("        last_rotated_at=rotated_at,\n", "        last_rotated_at=entry.last_rotated_at or rotated_at,\n"),
    ),
    _mutation(
        "I5",
        "this machine's clock is believed",
        "clocks",
        (
            "    return CorrectedClock(clock, offset if abs(offset) > TOLERATED else timedelta(0))\n",
            "    return CorrectedClock(clock, timedelta(0))\n",
        ),
    ),
    _mutation(
        "I6",
        "the ledger keeps keys",
        "model",
        ("        return hashlib.sha256(self._value.encode()).hexdigest()[:16]\n", "        return self._value\n"),
    ),
)


def caught(mutation: Mutation, directory: Path, *, seeds: int = SEEDS) -> subprocess.CompletedProcess[str]:
    """Search with this mistake in a copy of the worker, until it is caught (exit code 1) or all seeds are played (0)."""
    package = directory / "worker"
    shutil.copytree(ROOT / "worker", package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / f"{mutation.module}.py"
    source = path.read_text()
    for old, new in mutation.changes:
        if source.count(old) == 0:
            raise LookupError(
                f"worker/{mutation.module}.py has no {old!r} any more: mend the mutation {mutation.name!r}"
            )
        source = source.replace(old, new)
    path.write_text(source)
    return subprocess.run(
        [sys.executable, "-P", "-m", "tests.simulation", "--until-violation", f"--seeds={seeds}", "--jobs=1"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(directory), str(ROOT)))},
        capture_output=True,
        text=True,
        check=False,
    )
