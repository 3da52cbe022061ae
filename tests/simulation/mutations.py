"""Small mistakes in the worker's code, each of which breaks an invariant: the simulation has to catch every one.

A mutation is written as a patch is: lines that go, lines that come, and lines that stay. Guarantee: one whose lines are
not in the source any more is an error, so that the list stays true.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.scene import ROOT

SEEDS = 1000
"""Histories within which each must be caught. Most are within ten."""


@dataclass(frozen=True, slots=True)
class Mutation:
    invariant: str
    name: str
    module: str
    patch: str
    """Hunks, with a line `@@` between them, and the name of the module where it is another; a last line may be the
    beginning of one.
    """

    def apply(self, sources: Mapping[str, str]) -> dict[str, str]:
        """The modules with the mistake. Raises LookupError where one has not got the lines that are to change."""
        changed: dict[str, str] = {}
        module = self.module
        for part in re.split(r"^(?=@@)", self.patch.strip("\n"), flags=re.MULTILINE):
            head, hunk = re.fullmatch(r"(?:@@ ?([\w/]*)\n)?(.*?)\n?", part, re.DOTALL).groups()  # type: ignore[union-attr]
            module = head or module
            lines = hunk.split("\n")
            old, new = ("\n".join(line[1:] for line in lines if line[0] in (" ", sign)) for sign in ("-", "+"))
            source = changed.get(module, sources[module])
            if old not in source:
                raise LookupError(f"worker/{module}.py has changed: mend the mutation {self.name!r}")
            changed[module] = source.replace(old, new)
        return changed


@dataclass(frozen=True, slots=True)
class Caught:
    """After how many histories which violation was found; None: none was."""

    histories: int
    violation: str | None


MUTATIONS = (
    Mutation(
        "I1",
        "the intent is written after the create",
        "rotate/rotation",
        """
+            minted = await self._mint(target, account, admin_key)
             entry, written_at = await self._intend(target, entry, account)
             try:
-                return _Asked(entry, account, written_at, await self._mint(target, account, admin_key))
+                return _Asked(entry, account, written_at, minted)
""",
    ),
    Mutation(
        "I1",
        "an intent that took long to write is relied upon",
        "rotate/rotation",
        """
-            if self.context.clock.elapsed(begun) <= INTENT_FRESH_FOR and entry.version != before:
+            if True:
""",
    ),
    Mutation(
        "I1",
        "a create whose fate is unknown is sent again",
        "openai/client",
        """
-        if method == "POST" and not repeatable:
-            return await call()
+        repeatable = True
""",
    ),
    Mutation(
        "I2",
        "the Secret is patched whatever its resourceVersion is",
        "kubernetes/secret",
        """
-    metadata["resourceVersion"] = secret.version.resource_version
""",
    ),
    Mutation(
        "I2",
        "a key is published before it is narrowed",
        "rotate/rotation",
        """
-            await self._narrow(known)
             await self._verify(target, minted, asked.written_at)
             at = await self._publish(target, seen, entry, minted=minted, written_at=asked.written_at)
+            await self._narrow(known)
""",
    ),
    Mutation(
        "I2",
        "a narrowing without an answer counts as done",
        "rotate/rotation",
        """
             except (NotFound, Unanswered) as error:
+                return
""",
    ),
    Mutation(
        "I2",
        "after a conflict the key at hand is simply applied again",
        "rotate/rotation",
        """
-                again = await self._plan_again(target, entry, name)
+                again = await self.context.observer.secret(target.ref)
""",
    ),
    Mutation(
        "I2",
        "the claim is not looked at before the key is published",
        "rotate/rotation",
        """
-            await self._still_ours(target, name, written_at)
""",
    ),
    Mutation(
        "I2",
        "a key is published before OpenAI accepts it",
        "rotate/rotation",
        """
-            await self._verify(target, minted, asked.written_at)
""",
    ),
    Mutation(
        "I3",
        "an account is deleted without a look at the Secret",
        "retire/deletion",
        """
-        seen, secret = await self.observer.caught_up(entry)
+        seen, secret = entry, None
@@
-            await self._look_again(snapshot)
""",
    ),
    Mutation(
        "I3",
        "a look at the Secret counts however long ago it was",
        "retire/deletion",
        """
-            await self._look_again(snapshot)
""",
    ),
    Mutation(
        "I3",
        "the grace runs from the publication, not from its end",
        "plan/retirement",
        """
-    return max(previous.superseded_at + grace,
+    return max(previous.at + grace,
""",
    ),
    Mutation(
        "I3",
        "what was perhaps published goes without a grace",
        "retire/retirement",
        """
-        if not intent.refused:
+        if False:
""",
    ),
    Mutation(
        "I3",
        "nobody is asked who holds a key",
        "retire/retirement",
        """
-        consumers = await self.pods.consumers(entry.target)
+        consumers = ()
""",
    ),
    Mutation(
        "I3",
        "OpenAI is not asked when a key was last used",
        "retire/retirement",
        """
-        last_used, another = (None, None) if found.certain else await self._last_uses(previous, found.possible)
+        last_used, another = None, None
""",
    ),
    Mutation(
        "I3",
        "an annotation alone decides which account is the target's",
        "ledger/catch_up",
        """
-        if intent.account.id is None and named_at_openai != named.name:
-            # The id in the annotation may be forged: only OpenAI's name for it makes the intent a publication.
-            continue
""",
    ),
    Mutation(
        "I4",
        "404 is taken for gone without a list",
        "openai/projects",
        """
-            if shown_from is not None and shown_from > self._clock.now():
-                return False
-            if account_id not in (await self.listing(access, not_before=shown_from)).accounts:
-                return True
+            return True
""",
    ),
    Mutation(
        "I4",
        "a list that is answered 404 is taken for an empty one",
        "openai/projects",
        """
-            accounts = await self._openai.list_accounts(access.project, key)
+            try:
+                accounts = await self._openai.list_accounts(access.project, key)
+            except NotFound:
+                return Listing.of(begun, {})
""",
    ),
    Mutation(
        "I4",
        "any answer of success is taken for a deletion",
        "openai/client",
        """
-        answer = await self._json("DELETE", path, admin_key, what="delete account", repeatable=True)
-        if answer.get("deleted") is not True:
-            raise _unintelligible("delete account", "does not say that it is deleted")
+        await self._retry(
+            lambda: self._send("DELETE", path, admin_key, what="delete account"), repeatable=True
+        )
""",
    ),
    Mutation(
        "I4",
        "only the first page of a list is read",
        "openai/client",
        """
-            if not more:
+            if True:
""",
    ),
    Mutation(
        "I4",
        "one list lets an intent go",
        "ledger/transitions",
        """
-    if intent.missed_at is not None and list_begun_at >= intent.missed_at + LISTS_APART:
+    if True:
""",
    ),
    Mutation(
        "I4",
        "lists that began before the claim had ended count",
        "retire/retirement",
        """
-            listing = await self.projects.listing(account.access, not_before=intent.claimed_until)
+            listing = await self.projects.listing(account.access)
@@ retire/deletion
-        listing = await self.projects.listing(account.access, not_before=appeared)
+        listing = await self.projects.listing(account.access)
@@ retire/retirement
-        if claim is not None:
+        if False:
@@
-ended_claims(seen, self.clock.now())
+seen.unpublished
@@
-ended_claims(entry, now)
+entry.unpublished
""",
    ),
    Mutation(
        "I4",
        "what others wrote is forgotten after a conflict",
        "ledger/store",
        """
-                entry = await self.read(entry.target) or replace(entry, version=None, base=None)
+                fresh = await self.read(entry.target)
+                entry = replace(
+                    entry,
+                    version=fresh.version if fresh else None,
+                    stored=fresh.stored if fresh else b"{}",
+                )
""",
    ),
    Mutation(
        "I4",
        "an account that was made twice is forgotten with the first",
        "retire/deletion",
        """
-        return sorted({*twins, account.id})
+        return [account.id]
@@ retire/retirement
-            for account, twin in await self._unused_twins(seen):
+            for account, twin in ():
""",
    ),
    Mutation(
        "I5",
        "claims of other runs are ignored",
        "model/entries",
        """
-        running = [intent.claimed_until for intent in self.unpublished if intent.claimed_until > now]
+        running: list[datetime] = []
""",
    ),
    Mutation(
        "I5",
        "requests that were served are not noted",
        "ledger/transitions",
        """
-        honoured={**entry.honoured, **target.requests, **_source_noted(target), **_forced(run)},
""",
    ),
    Mutation(
        "I5",
        "the interval runs from the first publication",
        "ledger/transitions",
        """
-        last_rotated_at=max(rotated_at, entry.last_rotated_at or rotated_at),
+        last_rotated_at=entry.last_rotated_at or rotated_at,
""",
    ),
    Mutation(
        "I5",
        "this machine's clock is believed",
        "runtime/clocks",
        """
-    return RunClock(clock, offset if abs(offset) > TOLERATED else timedelta(0))
+    return RunClock(clock, timedelta(0))
@@
-        self._then = self.now() + offset
+        self._then = self.now()
""",
    ),
    Mutation(
        "I6",
        "the ledger keeps keys",
        "model/hidden",
        """
-        return hashlib.sha256(self._value.encode()).hexdigest()[:16]
+        return self._value
""",
    ),
    # --- the faults of the second review, each put back
    Mutation(
        "I8",
        "what a tenant names is asked about with the fallback admin key",
        "commands/adopt/command",
        """
-    own, records = projects(None), projects(options.fallback_admin_key)
+    own = records = projects(options.fallback_admin_key)
""",
    ),
    Mutation(
        "I6",
        "the fallback admin key goes to any allowed host",
        "openai/projects",
        """
-            usable = access.fallback and self._is_fallbacks(access.project.host)
+            usable = True
""",
    ),
    Mutation(
        "I3",
        "accounts are looked at, and their keys are not",
        "plan/reasons",
        """
-    _key_gone,
""",
    ),
    Mutation(
        "I3",
        "any 404 is the API server's word",
        "kubernetes/client",
        """
-        if not _is_about(request, answer):
+        if False:
""",
    ),
    Mutation(
        "I3",
        "a Secret that cannot be read is gone",
        "observe/observer",
        """
-            if known:
+            if False:
""",
    ),
    Mutation(
        "I5",
        "a late note undoes a newer rotation",
        "ledger/transitions",
        """
-    if any(publication.account.name == account.name for publication in entry.history):
+    if False:
@@
-    if later is not None:
+    if False:
@@
-        last_rotated_at=max(rotated_at, entry.last_rotated_at or rotated_at),
+        last_rotated_at=rotated_at,
""",
    ),
    Mutation(
        "I3",
        "sleep is invisible",
        "runtime/clocks",
        """
-        return max(self._base.monotonic() - since.monotonic, by_day.total_seconds())
+        return self._base.monotonic() - since.monotonic
""",
    ),
    Mutation(
        "I5",
        "times that a wrong clock wrote are believed",
        "ledger/plausible",
        """
-    if not _any_ahead(entry, horizon):
+    if True:
""",
    ),
    Mutation(
        "I4",
        "a project that looks empty is believed",
        "openai/projects",
        """
-            if len(recorded) > 1 and shown.isdisjoint(recorded):
+            if False:
""",
    ),
    Mutation(
        "I3",
        "a second key that somebody uses holds nothing",
        "plan/retirement",
        """
-    if usage.another_used is not None and usage.another_used + policy.unseen_hold > now:
+    if False:
""",
    ),
    Mutation(
        "I5",
        "a target may have any number of accounts",
        "plan/bounds",
        """
-    if count >= MOST_ACCOUNTS or (not healing and count >= run.max_accounts):
+    if False:
""",
    ),
    Mutation(
        "I5",
        "accounts are made on schedule while none may be deleted",
        "plan/bounds",
        """
-    if rotate.reason in ("Due", "Retry") and len(stuck) >= UNDELETABLE:
+    if False:
""",
    ),
    Mutation(
        "I2",
        "a look at a Secret counts for ever",
        "plan/looking",
        """
-    return look is not None and look.at <= now < look.at + run.look_every and look.wish == wish(target, entry)
+    return look is not None and bool(run.look_every) and look.wish == wish(target, entry)
""",
    ),
    Mutation(
        "I2",
        "a look at a Secret counts whatever is asked for since",
        "plan/looking",
        """
-    return look is not None and look.at <= now < look.at + run.look_every and look.wish == wish(target, entry)
+    return look is not None and look.at <= now < look.at + run.look_every
""",
    ),
    Mutation(
        "I2",
        "a Secret goes with its source whatever its policy says now",
        "kubernetes/secret",
        """
-        return others if len(others) < len(existing) else None
+        return None
""",
    ),
    Mutation(
        "I7",
        "a time at the end of the calendar is computed with",
        "kubernetes/reading",
        """
-    if not _EARLIEST <= found <= _LATEST:
+    if False:
""",
    ),
    Mutation(
        "I4",
        "a Secret that lives on with somebody else's key keeps our account",
        "retire/retirement",
        """
-            seen = await self._taken_over(seen, snapshot.secret)
+            pass
""",
    ),
    Mutation(
        "I3",
        "a step of this machine's clock is a step of the run's time",
        "runtime/clocks",
        """
-        return self._then + timedelta(seconds=self._base.monotonic() - self._since)
+        return self._then + (self._base.now() - self._wall)
""",
    ),
    Mutation(
        "I3",
        "a suspended target that is rejected loses its accounts",
        "retire/sweep",
        """
-        suspended |= {item.secret for item in discovered.rejected if item.suspended and item.secret is not None}
""",
    ),
    Mutation(
        "I4",
        "adopt looks for an account in the generator's project alone",
        "commands/adopt/command",
        """
-                other = self._other_project(target, claim) if names[id] is None else None
+                other = None
""",
    ),
    Mutation(
        "I4",
        "an entry that was moved with its ledger is unreadable",
        "ledger/codec",
        """
-        if not isinstance(ledger_namespace, str):
+        if True:
""",
    ),
    Mutation(
        "I3",
        "an old data key is told by the annotation alone",
        "kubernetes/secret",
        """
-        former |= {data_key for data_key, digest in secret.digests.items() if digest in places}
-        former |= {data_key for data_key, placed in account.values().items() if secret.has(data_key, placed)}
""",
    ),
    Mutation(
        "I5",
        "a Secret that is put back after each run is healed each time",
        "plan/rotation",
        """
-    if later <= now or now - last >= HEALINGS_FORGOTTEN_AFTER:
+    if True:
""",
    ),
    Mutation(
        "I3",
        "an account of our name is ours whoever uses it",
        "retire/deletion",
        """
-        return any(use is not None for use in uses)
+        return False
""",
    ),
    Mutation(
        "I3",
        "a 404 about a key means that it was never used",
        "openai/projects",
        """
-            if owner is not None and await self._exists(access, owner):
+            if False:
""",
    ),
    Mutation(
        "I5",
        "the retry of a forced Job rotates again",
        "plan/reasons",
        """
-    if run.job:
-        return entry.honoured.get(FORCED) == run.job
-    then = time_or_none(entry.honoured.get(FORCED))
+    then = None
""",
    ),
    Mutation(
        "I5",
        "OnChange goes by the generation alone",
        "plan/reasons",
        """
-    return [*names, SOURCE] if made_anew and not names else names
+    return names
""",
    ),
    Mutation(
        "I4",
        "an account that was renamed is not looked for by its id",
        "observe/observer",
        """
-        return named.name if await self.projects.key_accepted(access.project, value) else found.name
+        return found.name
""",
    ),
    Mutation(
        "I4",
        "targets of ExternalSecrets that are not served are let go",
        "retire/sweep",
        """
-            lost = self._lost(stored, asked, discovered) if discovered.unserved else frozenset()
+            lost: frozenset[Ref] = frozenset()
""",
    ),
    Mutation(
        "I2",
        "revoke does not note what it saw in the Secret",
        "commands/revoke/command",
        """
-        if left:
+        if False:
""",
    ),
    # --- the operator's own admin keys
    Mutation(
        "I3",
        "a replaced admin key goes without a grace",
        "plan/admin_rotation",
        """
-    return tuple(k for k in entry.superseded if k.superseded_at is not None and k.superseded_at + grace <= now)
+    return tuple(k for k in entry.superseded if k.superseded_at is not None)
""",
    ),
    Mutation(
        "I1",
        "an admin key whose create had no answer is not looked for by its name",
        "plan/admin_rotation",
        """
-        facts for facts in listed if facts.id == intent.id or (facts.name == intent.name and facts.id not in recorded)
+        facts for facts in listed if facts.id == intent.id
""",
    ),
)


def sources() -> dict[str, str]:
    """The worker's code as it is, by module."""
    root = ROOT / "worker"
    return {str(path.relative_to(root).with_suffix("")): path.read_text() for path in root.rglob("*.py")}


def search_with(mutation: Mutation) -> Caught:
    """Search with this mistake in a copy of the worker, until it is caught or all seeds are played."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        shutil.copytree(ROOT / "worker", directory / "worker", ignore=shutil.ignore_patterns("__pycache__"))
        for module, source in mutation.apply(sources()).items():
            (directory / "worker" / f"{module}.py").write_text(source)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tests.simulation", "--until-violation", f"--seeds={SEEDS}", "--jobs=1"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(directory), str(ROOT)))},
            capture_output=True,
            text=True,
            check=False,
        )
    played, violation = (
        re.match(r"(\d+) histories", done.stdout),
        re.search(r"^seed \d+: (.*)", done.stdout, re.MULTILINE),
    )
    if played is None or done.returncode != (violation is not None):
        raise RuntimeError(f"the search with the mutation {mutation.name!r} failed: {done.stderr[-2000:]}")
    return Caught(int(played[1]), violation[1] if violation is not None else None)
