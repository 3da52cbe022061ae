"""What humans do at OpenAI beside the worker, and what something in between hides of both APIs."""

from __future__ import annotations

import random
from datetime import timedelta

from tests.simulation.hands import Act, Hands
from tests.simulation.stage import PROJECTS, TARGETS, named
from worker.model.values import Ref

COPIED_AFTER = timedelta(minutes=10)
"""A younger account of ours is not copied: its run may have used a twin itself, so a use tells nothing."""


class OpenAIActs:
    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._stage, self._oracle = hands.stage, hands.oracle
        self.acts: tuple[Act, ...] = (
            *[self.delete_key] * 2,
            *[self.make_second_key] * 2,
            *[self.change_key_end] * 2,
            self.change_scopes,
            self.rename_account,
            *[self.copy_account] * 2,
        )
        self.veils: tuple[Act, ...] = (self.empty_project, self.hide_secret)

    def _carried(self, chance: random.Random) -> tuple[Ref, str, str, str] | None:
        """A target whose Secret carries a key of ours that is there: with project, account and key."""
        found = []
        for target in TARGETS:
            key = self._stage.key_in(self._stage.secret(target))
            alive = {account.id: account for account in self._stage.accounts()}
            if key is not None and key.account in alive and key.id in alive[key.account].keys:
                found.append((target, key.project, key.account, key.id))
        return chance.choice(found) if found else None

    def delete_key(self, chance: random.Random) -> str:
        """And leave its account, as a leak scanner does."""
        found = self._carried(chance)
        if found is None:
            return "no key to delete"
        target, project, _, key = found
        self._oracle.license(*TARGETS)
        self._stage.openai.delete_key(project, key)
        return f"deleted the key of {target}, not its account"

    def make_second_key(self, chance: random.Random) -> str:
        """A human makes one for an account of ours, and uses it for a while."""
        found = self._carried(chance)
        if found is None:
            return "no account to make a key for"
        target, project, account, _ = found
        id, value = self._stage.openai.add_key(project, account, "by hand")
        self._oracle.second_keys[account].append(value)
        self._oracle.key_made[id] = self._stage.moment()

        def use(_: random.Random) -> str:
            return f"used a second key: {self._stage.openai.use(value)}"

        self._stage.openai.use(value)
        for number in range(chance.choice((1, 6))):
            self._hands.later(chance.uniform(60, 1200) * (number + 1), use, chance)
        return f"made a second key for the account of {target}"

    def change_key_end(self, chance: random.Random) -> str:
        found = self._carried(chance)
        if found is None:
            return "no key whose end could change"
        target, project, _, key = found
        end = self._stage.now() + timedelta(minutes=chance.choice((0, 5, 60, 600)))
        self._oracle.license(*TARGETS)
        self._stage.openai.expire_key(project, key, end)
        return f"the key of {target} ends at {end:%H:%M:%S}"

    def change_scopes(self, chance: random.Random) -> str:
        """Of a key that is to be narrow: a human gives it all of them, or takes some."""
        found = self._carried(chance)
        if found is None or not self._stage.scopes_asked(found[0]):
            return "no key whose scopes could change"
        target, project, _, key = found
        scopes = chance.choice(((), (), ("api.all.read", "model.request"), ("model.request",)))
        self._stage.openai.narrow_key(project, key, *scopes)
        return f"the key of {target} may do {', '.join(scopes) or 'everything'}"

    def rename_account(self, chance: random.Random) -> str:
        """One that the ledger knows by its id: the name alone would be no link to it any more."""
        known = {account.get("id") for target in TARGETS for account in self._stage.recorded(target).values()}
        accounts = [account for account in self._stage.accounts() if account.id in known]
        if not accounts:
            return "no account to rename"
        account = chance.choice(accounts)
        self._stage.openai.rename_account(account.project, account.id, f"renamed-{account.name[-5:]}")
        return f"renamed {account.name}"

    def copy_account(self, chance: random.Random) -> str:
        """A human makes an account with the name of ours, and uses it at once."""
        found = self._carried(chance)
        if found is None:
            return "no account to copy"
        target, project, original, _ = found
        name = named(self._stage.secret(target) or {"metadata": {}}).get("name")
        if not isinstance(name, str) or not name:
            return "no name to copy"
        ours = next(account for account in self._stage.accounts() if account.id == original)
        if ours.created_at + COPIED_AFTER > self._stage.now():
            return f"{name} is too young to be copied"
        account, value = self._stage.openai.add_account(project, name)
        key = self._stage.openai.key(value)
        assert key is not None
        self._stage.strangers.add(account.id)
        self._oracle.copies[account.id] = key.id
        self._stage.openai.use(value)
        return f"a human made {account.id} with the name {name}, and uses it"

    # --- veils

    def empty_project(self, chance: random.Random) -> str:
        """It looks empty for some minutes, although creates work."""
        project = chance.choice(PROJECTS)
        self._stage.openai_seen.empty.add(project)
        # That one account alone is gone is believed.
        self._oracle.license(*TARGETS)

        def show(_: random.Random) -> str:
            self._stage.openai_seen.empty.discard(project)
            return f"{project} shows its accounts again"

        self._hands.later(chance.choice((60.0, 300.0, 900.0)), show, chance)
        return f"{project} looks empty"

    def hide_secret(self, chance: random.Random) -> str:
        """Something hides it from reads, with answers as an API server gives them."""
        target = chance.choice(TARGETS)
        self._stage.cluster_seen.hidden.add(target)

        def show(_: random.Random) -> str:
            self._stage.cluster_seen.hidden.discard(target)
            return f"{target} can be read again"

        self._hands.later(chance.choice((60.0, 300.0, 1800.0)), show, chance)
        return f"{target} is hidden from reads"

    def calm(self) -> None:
        """Nothing is hidden; whoever renamed an account gives it its name again."""
        self._stage.openai_seen.empty.clear()
        self._stage.cluster_seen.hidden.clear()
        self.give_names_back()

    def give_names_back(self) -> None:
        """Undo all renaming."""
        for account in self._stage.accounts():
            made = self._oracle.made.get(account.id)
            if made is not None and made.name != account.name:
                self._stage.openai.rename_account(account.project, account.id, made.name)
