"""What must hold at every moment, told from what passes between the workers and the servers.

Guarantee: every request that had an effect is heard, in the order of the effects, before any worker hears of it. What
must never happen is collected in `violations`; names and reasons are in there, values never.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

from sandbox.transport.wire import Request, Response
from tests.support.canary import leaks
from worker.kubernetes.secret import CURRENT, secret_view
from worker.model.times import parse_time


class Witness:
    """`due`: the number of the due date that is in force."""

    def __init__(self) -> None:
        self.due = 0
        self.violations: list[str] = []
        self.recorded: dict[str, tuple[str, int]] = {}
        """By account name: the target, as its entry is called, and the due date when it was recorded first."""
        self.made: dict[str, str] = {}
        """Account id to name."""
        self.deleted: set[str] = set()
        self.published: defaultdict[str, list[str]] = defaultdict(list)
        """By target: the accounts that were in its Secret, each once, in their order."""

    def hear_kubernetes(self, request: Request, response: Response) -> None:
        if request.method == "GET" or response.status >= 300 or "dryRun" in request.query:
            return
        if "/secrets" in request.path:
            self._secret(response)
            return
        if leaks(request.body.decode()) or leaks(response.body.decode()):
            self.violations.append(f"a key is in {request.method} {request.path}")
        if "/keyrotations" in request.path and request.method != "DELETE":
            self._entry(response)

    def hear_openai(self, request: Request, response: Response) -> None:
        if request.method == "GET" or response.status >= 300:
            return
        if request.method == "POST":
            account = response.json()
            self._made(account["id"], account["name"])
        else:
            self._gone(request.path.rpartition("/")[2])

    def _secret(self, response: Response) -> None:
        obj = response.json()
        named = secret_view(obj).named
        if leaks(str(obj["metadata"])):
            self.violations.append(f"a key is in the metadata of Secret {obj['metadata']['name']}")
        if named is not None and CURRENT in obj["metadata"]["annotations"]:
            target = f"{obj['metadata']['namespace']}.{obj['metadata']['name']}"
            if self.published[target][-1:] != [named.name]:
                self.published[target].append(named.name)
            if named.name in self.deleted:
                self.violations.append(f"account {named.name} was published to {target} after it was deleted")

    def _entry(self, response: Response) -> None:
        obj = response.json()
        target, accounts = obj["metadata"]["name"], obj.get("status", {}).get("accounts", {})
        for name in accounts:
            self.recorded.setdefault(name, (target, self.due))
        now = datetime.now(UTC)
        claims = [
            name
            for name, account in accounts.items()
            if "publishedAt" not in account and parse_time(account["claimedUntil"]) > now
        ]
        if len(claims) > 1:
            self.violations.append(f"{target} is claimed by several at once: {claims}")

    def _made(self, identifier: str, name: str) -> None:
        if name in self.made.values():
            self.violations.append(f"account {name} was made twice")
        self.made[identifier] = name
        if name not in self.recorded:
            self.violations.append(f"account {name} was made before it was recorded")
            return
        target, due = self.recorded[name]
        before = [other for other in self.published[target] if self.recorded[other][1] == due]
        if before:
            self.violations.append(f"account {name} is the second for due date {due} of {target}, after {before}")

    def _gone(self, identifier: str) -> None:
        if identifier not in self.made:
            self.violations.append("an account was deleted that no worker made")
            return
        name = self.made[identifier]
        self.deleted.add(name)
        target = self.recorded[name][0] if name in self.recorded else ""
        if self.published[target][-1:] == [name]:
            self.violations.append(f"account {name} was deleted while {target} names it")
