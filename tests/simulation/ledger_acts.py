"""Humans who reach into the ledger: entries deleted, edited, and moved with their namespace."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from sandbox.kubernetes.setup import apply, create_namespace
from tests.simulation.hands import Act, Hands
from tests.simulation.stage import TARGETS
from tests.support.scene import LEDGER
from worker.model.names import entry_name
from worker.model.times import format_time
from worker.model.values import Ref

TIMES = ("requestedAt", "claimedUntil", "publishedAt", "supersededAt", "expiresAt")
ENDS_OF_THE_CALENDAR = ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z")
"""The second is what Go programs write for "never"."""
Place = tuple[str, ...]


class LedgerActs:
    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._stage, self._oracle = hands.stage, hands.oracle
        self._wrong: list[tuple[Ref, Place, str]] = []
        """Times that have to be put right, with what they were."""
        self.lost = False
        """Has anything left the ledger that `adopt` is to find?"""
        self.acts: tuple[Act, ...] = (
            self.delete_entry,
            self.edit_ahead,
            self.edit_beyond,
            self.move_ledger,
        )

    def delete_entry(self, chance: random.Random) -> str:
        return self.delete_entry_of(chance.choice(TARGETS))

    def delete_entry_of(self, target: Ref) -> str:
        """A human thinks that it is not needed any more."""
        self._oracle.license(target)
        self._oracle.strike(target)
        self.lost = True
        self._hands.send("DELETE", _path(target))
        return f"deleted the ledger entry of {target}"

    def edit_ahead(self, chance: random.Random) -> str:
        """A time thirty days ahead, as a wrong clock would have written it. It stays."""
        found = self._some_time(chance)
        if found is None:
            return "no time to edit"
        target, place, _ = found
        self._edit(target, place, format_time(self._stage.now() + timedelta(days=30)))
        return f"{'.'.join(place)} of {target} is thirty days ahead"

    def edit_requests_ahead(self, target: Ref) -> None:
        """Of each account, when it was asked for, as a wrong clock would have written it. It stays."""
        for place, _ in list(self._times(target)):
            if place[-1] == "requestedAt":
                self._edit(target, place, format_time(self._stage.now() + timedelta(days=30)))

    def edit_beyond(self, chance: random.Random) -> str:
        """A time to which nothing can be added, or from which nothing can be taken; put right after a while."""
        done = self.edit_end_of(chance.choice(TARGETS), chance)

        def put_right(_: random.Random) -> str:
            self.put_right()
            return "times at an end of the calendar are put right"

        self._hands.later(chance.uniform(60, 3600), put_right, chance)
        return done

    def edit_end_of(self, target: Ref, chance: random.Random) -> str:
        """Set a time of the target's entry to an end of the calendar: when an account was superseded, if one was."""
        times = list(self._times(target))
        of_ends = [time for time in times if time[0][-1] == "supersededAt"]
        if not times:
            return "no time to edit"
        place, before = chance.choice(of_ends or times)
        self._edit(target, place, chance.choice(ENDS_OF_THE_CALENDAR))
        self._wrong.append((target, place, before))
        return f"{'.'.join(place)} of {target} is at an end of the calendar"

    def move_ledger(self, chance: random.Random) -> str:
        """Its namespace is made anew, and the entries are put back: they are another installation's until adopted.

        Sometimes the new namespace has another name: here, so that all else stays as it is, the former one had it.
        """
        kubernetes = self._stage.kubernetes
        team = kubernetes.find("namespaces", "", "team")
        if team is not None and "deletionTimestamp" in team["metadata"]:
            return "the ledger stays while another namespace terminates"
        entries = [copy.deepcopy(dict(entry)) for entry in kubernetes.objects("keyrotations", LEDGER)]
        self._oracle.license(*TARGETS)
        self.lost = True
        self._hands.send("DELETE", f"/api/v1/namespaces/{LEDGER}")
        kubernetes.finish_termination()
        create_namespace(kubernetes, LEDGER)
        self._stage.note_ledger()
        renamed = chance.random() < 0.5
        for entry in entries:
            if renamed:
                _name_former_ledger(entry)
            metadata = {"name": entry["metadata"]["name"], "namespace": LEDGER}
            apply(kubernetes, {**entry, "metadata": metadata})
        return f"moved the ledger{', from a namespace of another name' if renamed else ''}"

    # --- times

    def _some_time(self, chance: random.Random) -> tuple[Ref, Place, str] | None:
        """A time in the entry of a target that chance chooses; None where it has none."""
        target = chance.choice(TARGETS)
        times = list(self._times(target))
        return (target, *chance.choice(times)) if times else None

    def _times(self, target: Ref) -> Iterator[tuple[Place, str]]:
        entry = self._stage.kubernetes.find("keyrotations", LEDGER, entry_name(target))
        status: Mapping[str, Any] = entry.get("status", {}) if entry is not None else {}
        if "lastRotatedAt" in status:
            yield ("lastRotatedAt",), status["lastRotatedAt"]
        if "nextAttemptAt" in status.get("failures", {}):
            yield ("failures", "nextAttemptAt"), status["failures"]["nextAttemptAt"]
        for name, account in status.get("accounts", {}).items():
            for field in TIMES:
                if field in account:
                    yield ("accounts", name, field), account[field]

    def _edit(self, target: Ref, place: Place, value: str) -> None:
        self._oracle.license(target)
        self._oracle.edited.add(target)
        patch: Any = value
        for field in reversed(place):
            patch = {field: patch}
        self._hands.send("PATCH", _path(target), {"status": patch})

    def put_right(self) -> None:
        """Each that is still there as it was edited."""
        for target, place, before in self._wrong:
            if dict(self._times(target)).get(place) in ENDS_OF_THE_CALENDAR:
                self._edit(target, place, before)
        self._wrong.clear()

    def calm(self) -> None:
        """What cannot be read is put right."""
        self.put_right()


def _name_former_ledger(entry: dict[str, Any]) -> None:
    """The operator's admin keys were in the ledger's namespace, and the entry says so."""
    for account in entry.get("status", {}).get("accounts", {}).values():
        if account["adminKey"].get("namespace") == LEDGER:
            account["adminKey"]["namespace"] = "former-ledger"


def _path(target: Ref) -> str:
    return f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/{entry_name(target)}"
