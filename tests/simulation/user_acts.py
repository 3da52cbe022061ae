"""Users who change their minds: suspension, policies, data keys, intervals, hosts, whose admin key."""

from __future__ import annotations

import copy
import random
from datetime import timedelta
from typing import Any

from sandbox.kubernetes.setup import apply
from tests.simulation.hands import Act, Hands
from tests.simulation.stage import (
    GATEWAY,
    GENERATOR,
    INTERVALS,
    PROJECTS,
    SECOND,
    SOURCES,
    SUSPEND,
    TARGETS,
    TEMPLATES,
    external_secret_path,
    generator_path,
    of_generator,
)
from tests.support.scene import HOST, PROJECT
from worker.model.values import Ref

ITEM = {"sourceRef": {"generatorRef": {"kind": "OpenAI", "name": GENERATOR}}}
RENAMED = "OPENAI_API_KEY"
MALFORMED = "no/project"


class UserActs:
    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._stage, self._oracle = hands.stage, hands.oracle
        self.acts: tuple[Act, ...] = (
            *[self.suspend] * 2,
            *[self.change_policy] * 3,
            self.delete_for_good,
            *[self.rename_data_key] * 2,
            self.recreate_generator,
            self.change_refresh_policy,
            self.shorten_interval,
        )
        self.keys: tuple[Act, ...] = (self.name_gateway, self.use_central_key)

    def suspend(self, chance: random.Random) -> str:
        """By annotation, of an ExternalSecret or a generator; sometimes with a generator that is malformed as well."""
        namespace, value = chance.choice(("default", "team")), chance.choice(("true", "true", "maybe"))
        paths = [generator_path("default"), *(external_secret_path(target.name) for target in SOURCES)]
        path = generator_path("team") if namespace == "team" else chance.choice(paths)
        self._hands.send("PATCH", path, {"metadata": {"annotations": {SUSPEND: value}}})
        malformed = chance.random() < 0.4
        if malformed:
            self._hands.send("PATCH", generator_path(namespace), {"spec": {"projectId": MALFORMED}})

        def resume(_: random.Random) -> str:
            self._oracle.license(*of_generator(namespace))
            self._hands.send("PATCH", path, {"metadata": {"annotations": {SUSPEND: None}}})
            if malformed:
                self._hands.send("PATCH", generator_path(namespace), {"spec": {"projectId": PROJECT}})
            return f"resumed {path.rpartition('/')[2]}"

        self._hands.later(chance.uniform(300, 7200), resume, chance)
        return f"suspended {path.rpartition('/')[2]} with {value}{', and broke its generator' if malformed else ''}"

    def change_policy(self, chance: random.Random) -> str:
        target = chance.choice(SOURCES)
        policy = chance.choice(("Owner", "Orphan", "Orphan", "CreateOrMerge", "Merge"))
        self._hands.change_source(target, {"target": {"creationPolicy": policy}})
        if "Merge" in policy:
            self._oracle.merging.add(target)
        return f"{target} has the policy {policy}"

    def delete_for_good(self, chance: random.Random) -> str:
        """An ExternalSecret, for hours."""
        self._oracle.license(SECOND)
        self._hands.send("DELETE", external_secret_path(SECOND.name))
        return "deleted the second ExternalSecret for good"

    def rename_data_key(self, chance: random.Random, target: Ref | None = None) -> str:
        """And back, or back at once."""
        target = target or chance.choice(SOURCES)
        if len(self._stage.texts_wanted(target, "")) > 1:
            return self._change_template(target)
        renamed = self._stage.data_key(target) != "api_key"
        rewrite = {} if renamed else {"rewrite": [{"regexp": {"source": "api_key", "target": RENAMED}}]}
        self._hands.change_source(target, {"dataFrom": [ITEM | rewrite]})
        return f"the data key of {target} is {self._stage.data_key(target)}"

    def _change_template(self, target: Ref) -> str:
        """To the other one."""
        before, after = TEMPLATES if "config.yaml" in self._stage.texts_wanted(target, "") else reversed(TEMPLATES)
        gone = dict.fromkeys(before["data"])
        self._hands.change_source(target, {"target": {"template": after | {"data": gone | after["data"]}}})
        return f"the template of {target} makes {', '.join(self._stage.texts_wanted(target, ''))}"

    def recreate_generator(self, chance: random.Random) -> str:
        """With another project, at once or after a while; what it owned is collected."""
        namespace, project = chance.choice(("default", "team")), chance.choice(PROJECTS)
        old = self._stage.kubernetes.find("openais", namespace, GENERATOR)
        if old is None:
            return "no generator to make anew"
        new: dict[str, Any] = {field: copy.deepcopy(old[field]) for field in ("apiVersion", "kind", "spec")}
        new["spec"]["projectId"] = project
        annotations = dict(old["metadata"].get("annotations", {}))
        new["metadata"] = {"name": GENERATOR, "namespace": namespace, "annotations": annotations}
        self._oracle.license(*of_generator(namespace))
        self._hands.send("DELETE", generator_path(namespace))

        def create(_: random.Random) -> str:
            self._oracle.license(*of_generator(namespace))
            apply(self._stage.kubernetes, new)
            return f"made the generator in {namespace} anew, with {project}"

        if chance.random() < 0.5:
            return create(chance)
        self._hands.later(chance.uniform(10, 1800), create, chance)
        return f"deleted the generator in {namespace}"

    def change_refresh_policy(self, chance: random.Random) -> str:
        target, policy = chance.choice(SOURCES), chance.choice(("OnChange", "OnChange", "CreatedOnce", "Periodic"))
        self._hands.change_source(target, {"refreshPolicy": policy})
        return f"{target} has the refresh policy {policy}"

    def shorten_interval(self, chance: random.Random) -> str:
        """To what nobody can keep to, for a while."""
        target = chance.choice(SOURCES)
        self._stage.shortest[target] = timedelta(minutes=1)
        self._hands.change_source(target, {"refreshInterval": "1s"})

        def lengthen(_: random.Random) -> str:
            self._hands.change_source(target, {"refreshInterval": _interval(target)})
            return f"{target} has its interval again"

        self._hands.later(chance.uniform(300, 3600), lengthen, chance)
        return f"{target} has an interval of a second"

    # --- admin keys

    def name_gateway(self, chance: random.Random) -> str:
        """A tenant's generator names a gateway of its own, for a while."""
        self._stage.named_hosts["team"].add(GATEWAY)
        self._oracle.license(*of_generator("team"))
        self._hands.send("PATCH", generator_path("team"), {"spec": {"host": GATEWAY}})

        def leave(_: random.Random) -> str:
            self._oracle.license(*of_generator("team"))
            self._hands.send("PATCH", generator_path("team"), {"spec": {"host": HOST}})
            return "the generator in team names OpenAI again"

        self._hands.later(chance.uniform(300, 7200), leave, chance)
        return "the generator in team names a gateway"

    def use_central_key(self, chance: random.Random) -> str:
        """The generator names no admin key of its own, for a while; each run may or may not grant it the operator's."""
        own = self._own_key()
        nothing = dict.fromkeys(own)
        self._hands.send("PATCH", generator_path("default"), {"spec": {"openAiAdminKey": nothing}})

        def leave(_: random.Random) -> str:
            self._hands.send("PATCH", generator_path("default"), {"spec": {"openAiAdminKey": own}})
            return "the generator in default names its own admin key again"

        self._hands.later(chance.uniform(300, 7200), leave, chance)
        return "the generator in default asks for a central admin key"

    def _own_key(self) -> dict[str, str]:
        return {"name": "openai-admin-secret", "key": "api-key"}

    def calm(self) -> None:
        """All is as documented."""
        for namespace in ("default", "team"):
            spec = {"projectId": PROJECT, "host": HOST, "openAiAdminKey": self._own_key()}
            self._hands.send(
                "PATCH", generator_path(namespace), {"metadata": {"annotations": {SUSPEND: None}}, "spec": spec}
            )
        for target in SOURCES:
            wanted: dict[str, object] = {
                "refreshInterval": _interval(target),
                "refreshPolicy": None,
                "dataFrom": [ITEM],
                "target": {"creationPolicy": None},
            }
            self._hands.send(
                "PATCH",
                external_secret_path(target.name),
                {"metadata": {"annotations": {SUSPEND: None}}, "spec": wanted},
            )
        self._oracle.license(*TARGETS)


def _interval(target: object) -> str:
    return next(f"{interval.total_seconds():.0f}s" for ref, interval in INTERVALS.items() if ref == target)
