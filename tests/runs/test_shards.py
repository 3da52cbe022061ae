"""Several pods share the targets: each is served by exactly one of them, and nothing that only one sees is missed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.scene import LEDGER, TARGET, Scene, checked_scene
from worker.model.names import entry_name
from worker.model.outcomes import Result
from worker.model.shard import WHOLE, Shard
from worker.model.values import Ref
from worker.report.summary import run_fields
from worker.settings.arguments import UsageError, parse

scene = pytest.fixture(checked_scene)
FOUR = [Shard(index, 4) for index in range(4)]
API = "/apis/generators.external-secrets.io/v1alpha1/namespaces/{}/openais/{}"


def owner(ref: Ref) -> Shard:
    return next(shard for shard in FOUR if shard.owns(ref))


def elsewhere(ref: Ref) -> Ref:
    """A Secret of the same namespace that is another shard's."""
    refs = (Ref(ref.namespace, f"other-{i}") for i in range(100))
    return next(other for other in refs if owner(other) != owner(ref))


def run_all(scene: Scene, shards: list[Shard] = FOUR, **options: Any) -> Counter[tuple[Ref, str]]:
    """What each shard's run told of which target."""
    told: Counter[tuple[Ref, str]] = Counter()
    for shard in shards:
        scene.run(shard=shard, **options)
        told.update((outcome.target, outcome.reason) for outcome in scene.watcher.outcomes)
    return told


def external_secret(ref: Ref, generator: str = "openai-generator", **target: Any) -> dict[str, Any]:
    reference = {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "name": generator}
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": {"target": target, "dataFrom": [{"sourceRef": {"generatorRef": reference}}]},
    }


@pytest.mark.parametrize("count", [2, 4, 7, 64])
def test_each_target_belongs_to_exactly_one_shard_and_they_are_about_equal(count: int) -> None:
    """By its ledger entry's name, which is cut where it is long."""
    refs = [Ref(f"team-{i % 40}", f"creds-{i}" + "x" * (250 if i % 7 == 0 else 0)) for i in range(6400)]
    shards = [Shard(index, count) for index in range(count)]
    owners = [[shard.index for shard in shards if shard.owns(ref)] for ref in refs]
    assert all(len(found) == 1 for found in owners)
    assert all(shard.owns(ref) == shard.owns_entry(entry_name(ref)) for ref in refs[:100] for shard in shards)
    sizes = Counter(found[0] for found in owners)
    assert len(sizes) == count
    assert max(sizes.values()) < 1.6 * 6400 / count


def test_a_whole_is_one_shard() -> None:
    """What runs without the option owns everything."""
    assert all(WHOLE.owns(Ref("a", str(i))) for i in range(100))


def test_shards_together_do_what_one_run_does(scene: Scene) -> None:
    """No target twice, none missed; superseded accounts go, each in its own shard; and the next run has nothing due."""
    scene.apply_documented()
    refs = [TARGET, *(Ref("default", f"creds-{i}") for i in range(20))]
    scene.apply(*(external_secret(ref) for ref in refs[1:]))
    assert len({owner(ref) for ref in refs}) == 4
    assert run_all(scene) == Counter((ref, "First") for ref in refs)
    scene.advance(hours=1)
    assert run_all(scene) == Counter((ref, "Due") for ref in refs)
    assert len(scene.accounts()) == len(refs)
    assert all(scene.live_key(ref) for ref in refs)
    assert run_all(scene) == Counter((ref, "NotDue") for ref in refs)


def test_shards_at_once_do_not_get_in_each_others_way(scene: Scene) -> None:
    """As the pods of one Job run."""
    scene.apply_documented()
    refs = [TARGET, *(Ref("default", f"creds-{i}") for i in range(20))]
    scene.apply(*(external_secret(ref) for ref in refs[1:]))
    reports = scene.run_together(*({"shard": shard} for shard in FOUR))
    done = Counter(outcome.target for report in reports for outcome in report.outcomes)
    assert done == Counter(refs)
    assert {outcome.result for report in reports for outcome in report.outcomes} == {Result.ROTATED}
    assert len(scene.accounts()) == len(refs)


def test_a_target_that_is_gone_is_its_shards_to_clean_up(scene: Scene) -> None:
    """Nobody else takes its entry for abandoned, or looks at it at all."""
    scene.apply_documented()
    run_all(scene)
    others = [shard for shard in FOUR if shard != owner(TARGET)]
    for _ in range(2):
        run_all(scene, others)
        scene.advance(hours=1)
    assert (len(scene.accounts()), scene.live_key()) == (1, True)
    scene.delete("/apis/external-secrets.io/v1/namespaces/default/externalsecrets/openai-credentials")
    for _ in range(2):
        run_all(scene, others)
        scene.advance(hours=1)
    assert len(scene.accounts()) == 1
    for _ in range(2):
        run_all(scene, [owner(TARGET)])
        scene.advance(hours=1)
    assert (scene.accounts(), scene.entry()) == ([], None)


def test_two_sources_of_one_secret_are_seen_by_its_shard(scene: Scene) -> None:
    """An ExternalSecret and a generator that stands alone, whatever their own names: both are refused, once each."""
    scene.apply_documented()
    rival = Ref("default", "rival")
    scene.apply(external_secret(rival, name=TARGET.name))
    annotations = {"openai-key-rotator.io/secret": TARGET.name}
    scene.merge(API.format("default", "openai-generator"), {"metadata": {"annotations": annotations}})
    assert run_all(scene) == Counter({(TARGET, "SharedTarget"): 3})


def test_an_admin_secret_is_protected_by_generators_of_other_shards(scene: Scene) -> None:
    """A generator that no target of the shard uses still keeps its admin Secret from being written."""
    scene.apply_documented()
    admin = Ref("default", "openai-admin-secret")
    for i in range(20):  # some are other shards'
        key = {"name": f"admin-{i}", "key": "k"}
        other = {"projectId": "p", "host": "https://openai.test/v1", "openAiAdminKey": key}
        scene.apply({"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI",
                     "metadata": {"name": f"gen-{i}", "namespace": "default"}, "spec": other})  # fmt: skip
    wanted = [external_secret(Ref("default", f"w-{i}"), name=f"admin-{i}", creationPolicy="Merge") for i in range(20)]
    scene.apply(*wanted, external_secret(Ref("default", "w"), name=admin.name, creationPolicy="Merge"))
    told = run_all(scene)
    admins = (admin, *(Ref("default", f"admin-{i}") for i in range(20)))
    assert {ref: reason for ref, reason in told if "admin" in ref.name} == dict.fromkeys(admins, "AdminKeySecret")
    assert told.total() == 1 + 21


def test_what_has_no_secret_is_told_by_one_shard(scene: Scene) -> None:
    """A generator that feeds nothing, one that is malformed, and one whose Secret is no name."""
    scene.apply_documented()
    spec = {"projectId": "p", "host": "https://openai.test/v1", "openAiAdminKey": {"name": "a", "key": "k"}}
    for name, more in (("idle", {}), ("bad", {"serviceAccountNameSize": 99})):
        scene.apply({"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI",
                     "metadata": {"name": name, "namespace": "default"}, "spec": spec | more})  # fmt: skip
    annotations = {"openai-key-rotator.io/secret": "No/Name"}
    scene.apply({"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "OpenAI", "spec": spec,
                 "metadata": {"name": "nameless", "namespace": "default", "annotations": annotations}})  # fmt: skip
    told, unused = Counter[tuple[Ref, str]](), Counter[Ref]()
    for shard in FOUR:
        told.update((outcome.target, outcome.reason) for outcome in scene.run(shard=shard).outcomes)
        unused.update(scene.watcher.unused)
    assert told == {
        (TARGET, "First"): 1,
        (Ref("default", "bad"), "InvalidSpec"): 1,
        (Ref("default", "nameless"), "InvalidSpec"): 1,
    }
    assert unused == {Ref("default", "idle"): 1}
    assert scene.events().count(("Normal", "FeedsNothing")) == 1


def test_an_entry_that_was_edited_is_told_by_one_shard(scene: Scene) -> None:
    """By its name, whatever it says itself."""
    scene.apply_documented()
    run_all(scene)
    path = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/{entry_name(TARGET)}"
    scene.merge(path, {"spec": {"target": {"secret": elsewhere(TARGET).name}}})
    assert run_all(scene) == Counter({(TARGET, "LedgerUnreadable"): 1})


def test_the_index_comes_from_the_indexed_job() -> None:
    """Kubernetes sets it; without the option a pod of an Indexed Job does everything."""
    assert parse(["--shards", "4"], {"JOB_COMPLETION_INDEX": "3"}).options.shard == Shard(3, 4)
    assert parse([], {"ROTATOR_SHARDS": "2", "JOB_COMPLETION_INDEX": "0"}).options.shard == Shard(0, 2)
    assert parse([], {"JOB_COMPLETION_INDEX": "3"}).options.shard == WHOLE
    assert parse(["--shards=1"], {}).options.shard == WHOLE


@pytest.mark.parametrize("index", [None, "", "4", "17", "-1", "x", "٣", "1.0"])
def test_a_pod_that_has_no_part_is_a_mistake(index: str | None) -> None:
    """Exit code 2: nobody would serve what it should."""
    with pytest.raises(UsageError) as caught:
        parse(["--shards", "4"], {} if index is None else {"JOB_COMPLETION_INDEX": index})
    assert "JOB_COMPLETION_INDEX" in str(caught.value)


def test_the_run_tells_which_part_it_was(scene: Scene) -> None:
    """In its last log line."""
    assert run_fields(scene.run(shard=FOUR[2]))["shard"] == "2 of 4"
    assert "shard" not in run_fields(scene.run())
