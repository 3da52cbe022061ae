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
END_OF_THE_CALENDAR = "9999-12-31T23:59:59Z"
Place = tuple[str, ...]


class LedgerActs:
    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._stage, self._oracle = hands.stage, hands.oracle
        self._wrong: list[tuple[Ref, Place, str]] = []
        """Times that have to be put right, with what they were."""
        self.acts: tuple[Act, ...] = (
            self.delete_entry,
            self.edit_ahead,
            self.edit_beyond,
            self.move_ledger,
        )

    def delete_entry(self, chance: random.Random) -> str:
        target = chance.choice(TARGETS)
        self._oracle.license(target)
        self._oracle.strike(target)
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

    def edit_beyond(self, chance: random.Random) -> str:
        """A time to which nothing can be added; put right after a while."""
        found = self._some_time(chance)
        if found is None:
            return "no time to edit"
        target, place, before = found
        self._edit(target, place, END_OF_THE_CALENDAR)
        self._wrong.append((target, place, before))

        def put_right(_: random.Random) -> str:
            self._put_right()
            return "times at the end of the calendar are put right"

        self._hands.later(chance.uniform(60, 3600), put_right, chance)
        return f"{'.'.join(place)} of {target} is at the end of the calendar"

    def move_ledger(self, chance: random.Random) -> str:
        """Its namespace is made anew, and the entries are put back: they are another installation's until adopted."""
        kubernetes = self._stage.kubernetes
        team = kubernetes.find("namespaces", "", "team")
        if team is not None and "deletionTimestamp" in team["metadata"]:
            return "the ledger stays while another namespace terminates"
        entries = [copy.deepcopy(dict(entry)) for entry in kubernetes.objects("keyrotations", LEDGER)]
        self._oracle.license(*TARGETS)
        self._hands.send("DELETE", f"/api/v1/namespaces/{LEDGER}")
        kubernetes.finish_termination()
        create_namespace(kubernetes, LEDGER)
        self._stage.note_ledger()
        for entry in entries:
            metadata = {"name": entry["metadata"]["name"], "namespace": LEDGER}
            apply(kubernetes, {**entry, "metadata": metadata})
        return "moved the ledger"

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

    def _put_right(self) -> None:
        """Each that is still there as it was edited."""
        for target, place, before in self._wrong:
            if dict(self._times(target)).get(place) == END_OF_THE_CALENDAR:
                self._edit(target, place, before)
        self._wrong.clear()

    def calm(self) -> None:
        """What cannot be read is put right."""
        self._put_right()


def _path(target: Ref) -> str:
    return f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/{entry_name(target)}"
