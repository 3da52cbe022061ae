"""Admin keys in the worker's namespace: who may use them for what, and that nobody gets further by one."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.transport.faults import Fate, Latency, Rule, Rules, too_many_requests
from sandbox.transport.wire import Request
from tests.support.builders import KEY
from tests.support.scene import HOST, LEDGER, PROJECT, TARGET, Scene, checked_scene
from worker.commands.adopt.judge import Verdict
from worker.kubernetes.secret import CURRENT, PREVIOUS
from worker.model.hosts import DEFAULT_HOST, named_origin
from worker.model.outcomes import Result
from worker.model.targets import AdminKeyRef, Project
from worker.model.values import Ref
from worker.report.summary import exit_code
from worker.settings.arguments import UsageError, parse
from worker.settings.central_keys import CentralKeys, central_keys

scene = pytest.fixture(checked_scene)
CENTRAL = AdminKeyRef(Ref(LEDGER, "central"), "api-key")
GENERATOR = "/apis/generators.external-secrets.io/v1alpha1/namespaces/{}/openais/openai-generator"
EXTERNAL_SECRET = "/apis/external-secrets.io/v1/namespaces/{}/externalsecrets/openai-credentials"


def read(*entries: Any) -> CentralKeys:
    return central_keys(list(entries), LEDGER, {named_origin(HOST)})


def for_default(*, host: str = HOST, project: str = PROJECT, namespace: str = "default") -> CentralKeys:
    return read({"secret": "central", "host": host, "projects": {project: [namespace]}})


# --- the file


def test_an_entry_says_which_namespaces_may_use_a_key_for_which_projects() -> None:
    """Nobody else, and for no other project or host."""
    keys = read(
        {"secret": "one", "projects": {"proj_a": ["team-a", "team-b"], "proj_b": ["team-b"]}},
        {"secret": "two", "key": "k", "host": "https://eu.api.openai.com/v1/", "projects": {"proj_a": ["team-c"]}},
    )
    one, two = AdminKeyRef(Ref(LEDGER, "one"), "api-key"), AdminKeyRef(Ref(LEDGER, "two"), "k")
    a, b, elsewhere = Project(DEFAULT_HOST, "proj_a"), Project(DEFAULT_HOST, "proj_b"), "https://eu.api.openai.com/v1"
    assert [keys.key_for(a, f"team-{name}") for name in "abc"] == [one, one, None]
    assert [keys.key_for(b, f"team-{name}") for name in "abc"] == [None, one, None]
    assert keys.key_for(Project(elsewhere, "proj_a"), "team-c") == two
    assert keys.key_for(Project(elsewhere, "proj_a"), "team-a") is None
    assert keys.secrets == {one.secret, two.secret}


def test_a_namespace_that_is_named_goes_before_all_of_them() -> None:
    """Wherever in the file."""
    everybody = {"secret": "one", "projects": {"proj_a": ["*"]}}
    named = {"secret": "two", "projects": {"proj_a": ["team-a"]}}
    for entries in ((everybody, named), (named, everybody)):
        keys = read(*entries)
        found = [keys.key_for(Project(DEFAULT_HOST, "proj_a"), name) for name in ("team-a", "team-b")]
        assert [ref.secret.name for ref in found if ref is not None] == ["two", "one"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"secret": "a"}, "must be a list"),
        (["a"], "must have the fields"),
        ([{"secret": "a", "namespaces": ["b"], "projects": {"p": ["b"]}}], "must have the fields"),
        ([{"projects": {"p": ["b"]}}], "secret must be the name"),
        ([{"secret": KEY, "projects": {"p": ["b"]}}], "secret must be the name"),
        ([{"secret": "../a", "projects": {"p": ["b"]}}], "secret must be the name"),
        ([{"secret": "a", "key": "a/b", "projects": {"p": ["b"]}}], "key must be a key"),
        ([{"secret": "a", "host": "openai", "projects": {"p": ["b"]}}], "host is not an https URL"),
        ([{"secret": "a"}], "projects must say"),
        ([{"secret": "a", "projects": ["p"]}], "projects must say"),
        ([{"secret": "a", "projects": {"../p": ["b"]}}], "by their ids"),
        ([{"secret": "a", "projects": {7: ["b"]}}], "by their ids"),
        ([{"secret": "a", "projects": {"p": "*"}}], "must be a list of namespaces"),
        ([{"secret": "a", "projects": {"p": []}}], "must be a list of namespaces"),
        ([{"secret": "a", "projects": {"p": ["team-*"]}}], "number 1 is not the name of a namespace"),
        ([{"secret": "a", "projects": {"p": ["a", None]}}], "number 2 is not the name of a namespace"),
        ([{"secret": "a", "projects": {"p": ["a", True]}}], "number 2 is not the name of a namespace"),
        (
            [{"secret": "a", "host": "http://api.openai.com/v1", "projects": {"p": ["b"]}}],
            "not OpenAI's own over https",
        ),
        ([{"secret": "a", "host": "https://evil.example", "projects": {"p": ["b"]}}], "not named with --allow-host"),
        (
            [{"secret": "a", "projects": {"p": ["b"]}}, {"secret": "c", "projects": {"p": ["b"]}}],
            "entry 2: project p at https://api.openai.com/v1 has another key for b already",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_and_nothing_is_run(document: object, words: str) -> None:
    """A file that is half right grants nothing. Its text is not quoted: somebody may have put a key there."""
    with pytest.raises(ValueError, match=words.replace("*", r"\*")) as caught:
        central_keys(document, LEDGER)
    assert KEY not in str(caught.value)


def test_all_mistakes_of_the_file_are_told_at_once() -> None:
    """With the entry that each is in."""
    with pytest.raises(ValueError, match=r"entry 1: .*; entry 3: ") as caught:
        read({"secret": "A"}, {"secret": "a", "projects": {"p": ["b"]}}, {"secret": "c"})
    assert "entry 2" not in str(caught.value)


def test_the_option_names_a_yaml_file(tmp_path: Path) -> None:
    """Its Secrets are beside the ledger, wherever that is."""
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump([{"secret": "central", "projects": {"p": ["a"]}}]))
    settings = parse(["--central-admin-keys", str(file), "--ledger-namespace", "ops"], {})
    found = settings.options.central_keys.key_for(Project(DEFAULT_HOST, "p"), "a")
    assert found == AdminKeyRef(Ref("ops", "central"), "api-key")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read (FileNotFoundError)"),
        ("", "is empty"),
        ("# nothing yet\n", "is empty"),
        (f"- secret: {KEY}\n  secret: b\n  projects: {{p: [a]}}", "has a key twice in the map, line 1"),
        ("- secret: b\n  projects:\n    p: [a]\n    p: [b]", "has a key twice in the map, line 3"),
        ("- secret: b\n  projects: {2026-13-45: [a]}", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        (f"a: [{KEY}", "is not YAML, line 1"),
        ("[]: 1", "is not YAML"),
        ("\x00", "is not YAML"),
        ("{}", "must be a list"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_mistake_in_the_settings(tmp_path: Path, text: str | None, words: str) -> None:
    """Exit code 2, next to the other mistakes; and no word of the file."""
    file = tmp_path / "keys.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as caught:
        parse(["--concurrency=0"], {"ROTATOR_CENTRAL_ADMIN_KEYS": str(file)})
    assert len(caught.value.mistakes) == 2
    assert words in caught.value.mistakes[1] or words in caught.value.mistakes[0]
    assert KEY not in str(caught.value)


# --- whole runs


def install(scene: Scene, namespace: str = "default", **generator: object) -> None:
    """The documentation's objects, without an admin Secret."""
    if namespace != "default":
        scene.namespace(namespace)
    scene.apply_documented(namespace, **{"openAiAdminKey": {}, **generator})
    scene.delete(f"/api/v1/namespaces/{namespace}/secrets/openai-admin-secret")


def put_central(scene: Scene) -> None:
    metadata = {"name": CENTRAL.secret.name, "namespace": LEDGER}
    data = {CENTRAL.key: scene.admin_key}
    scene.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})


def test_a_generator_without_an_admin_secret_is_served_by_the_central_key(scene: Scene) -> None:
    """Rotated, its previous account retired; once nobody asks for it, all of it goes."""
    put_central(scene)
    install(scene)
    for _ in range(3):
        scene.run(central_keys=for_default())
        scene.advance(hours=1)
        assert scene.outcome().result is Result.ROTATED
    assert scene.live_key()
    assert len(scene.accounts()) == 1
    assert scene.stored_entry().history[-1].account.access.admin_key == CENTRAL
    scene.delete(EXTERNAL_SECRET.format("default"))
    for _ in range(2):
        scene.run(central_keys=for_default())
        scene.advance(hours=1)
    assert (scene.accounts(), scene.entry()) == ([], None)


@pytest.mark.parametrize(
    "keys",
    [
        CentralKeys(),
        for_default(namespace="team-b"),
        for_default(project="proj_other"),
        for_default(host="https://eu.api.openai.com/v1"),
    ],
    ids=["none", "another namespace", "another project", "another host"],
)
def test_without_an_entry_it_is_refused_with_words(scene: Scene, keys: CentralKeys) -> None:
    """Nothing is asked at OpenAI, and the words say what is missing, where a tenant looks."""
    put_central(scene)
    install(scene)
    report = scene.run(central_keys=keys)
    outcome = scene.outcome()
    assert (outcome.result, outcome.reason) == (Result.BLOCKED, "NoCentralAdminKey")
    for words in ("openAiAdminKey", "namespace default", PROJECT, "--central-admin-keys"):
        assert words in scene.condition()["message"]
    assert scene.openai_session is not None
    assert scene.openai_session.log == []
    assert exit_code(report, strict=False) == 0


def test_a_grant_that_is_withdrawn_leaves_the_key_in_use_and_still_lets_accounts_go(scene: Scene) -> None:
    """No new key; the accounts that the ledger records are ours to delete, whoever may ask for new ones."""
    put_central(scene)
    install(scene)
    scene.run(central_keys=for_default())
    scene.advance(hours=1)
    scene.run(central_keys=for_default(), max_wait=timedelta(0))
    scene.advance(hours=1)
    scene.run(central_keys=CentralKeys())
    assert scene.outcome().reason == "NoCentralAdminKey"
    assert scene.live_key()
    assert len(scene.accounts()) == 1
    scene.delete(EXTERNAL_SECRET.format("default"))
    for _ in range(2):
        scene.run(central_keys=CentralKeys())
        scene.advance(hours=1)
    assert scene.accounts() == []


@pytest.mark.parametrize(
    "reference",
    [
        {"name": "central", "key": "api-key", "namespace": LEDGER},
        {"key": "api-key"},
        {"namespace": LEDGER},
        {"name": "central", "key": "api-key"},
    ],
)
def test_a_tenant_does_not_choose_a_central_key(scene: Scene, reference: dict[str, str]) -> None:
    """It names a Secret of its own, or nothing at all."""
    put_central(scene)
    install(scene, openAiAdminKey=reference)
    scene.run(central_keys=for_default(namespace="team-b"))
    assert scene.outcome().result is not Result.ROTATED
    assert scene.accounts() == []


def test_the_secret_with_a_central_key_is_no_target(scene: Scene) -> None:
    """Not even for a generator beside it."""
    put_central(scene)
    scene.apply_documented(LEDGER)
    wanted = {"spec": {"target": {"name": CENTRAL.secret.name, "creationPolicy": "Merge"}}}
    scene.merge(EXTERNAL_SECRET.format(LEDGER), wanted)
    before = scene.secret(CENTRAL.secret)
    scene.run(central_keys=for_default())
    assert scene.outcome(CENTRAL.secret).reason == "AdminKeySecret"
    assert scene.secret(CENTRAL.secret) == before


def test_an_annotation_does_not_turn_the_central_key_to_another_project(scene: Scene) -> None:
    """A tenant's own key sees what is its own; this one sees more: what only a tenant names is not asked about."""
    scene.openai.add_project("acme", "proj_victim")
    victim, _ = scene.openai.add_account("proj_victim", "app_victim")
    put_central(scene)
    install(scene)
    scene.run(central_keys=for_default())
    annotation = scene.named() | {"id": victim.id, "name": victim.name, "projectId": "proj_victim"}
    path = f"/api/v1/namespaces/default/secrets/{TARGET.name}"
    scene.merge(path, {"metadata": {"annotations": {CURRENT: json.dumps(annotation)}}})
    for command in (scene.run, scene.adopt, lambda **more: scene.adopt(TARGET, yes=True, **more)):
        scene.advance(hours=1)
        command(central_keys=for_default())
        assert scene.openai_session is not None
        assert not [exchange for exchange in scene.openai_session.log if "proj_victim" in exchange.path]
    assert [account.id for account in scene.openai.accounts("proj_victim")] == [victim.id]


def test_an_account_that_only_a_tenants_annotation_names_is_adopted_by_its_id_alone(scene: Scene) -> None:
    """It may be anybody's in the project: a bot made by hand, or a neighbour's whose entry is lost."""
    bot, _ = scene.openai.add_account(PROJECT, "ci-prod-bots")
    put_central(scene)
    install(scene, serviceAccountNamePrefix="", serviceAccountNameSize=12)
    scene.run(central_keys=for_default())
    path = f"/api/v1/namespaces/default/secrets/{TARGET.name}"
    previous = json.dumps([{"id": bot.id, "name": bot.name}])
    scene.merge(path, {"metadata": {"annotations": {PREVIOUS: previous}}})
    for targets in ((), (TARGET,)):
        (finding,) = [f for f in scene.adopt(*targets, yes=True, central_keys=for_default()).findings if f.id == bot.id]
        assert (finding.verdict, finding.reason) == (Verdict.REFUSED, "CentralAdminKey")
        assert f"--account {bot.id}" in finding.message
    scene.advance(days=2)
    scene.run(central_keys=for_default())
    assert bot.id in {account.id for account in scene.openai.accounts(PROJECT)}
    scene.adopt(TARGET, yes=True, accounts=(bot.id,), central_keys=for_default())
    assert bot.name in {publication.account.name for publication in scene.stored_entry().history}


def test_a_lost_entry_is_adopted_by_the_id_that_a_human_gives(scene: Scene) -> None:
    """Also the account whose key is in the Secret."""
    put_central(scene)
    install(scene)
    scene.run(central_keys=for_default())
    account = scene.named()["id"]
    scene.delete(f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/default.{TARGET.name}")
    assert scene.adopt(yes=True, central_keys=for_default()).refused
    assert scene.entry() is None
    assert not scene.adopt(TARGET, yes=True, accounts=(account,), central_keys=for_default()).refused
    scene.advance(hours=1)
    scene.run(central_keys=for_default())
    assert scene.outcome().result is Result.ROTATED
    assert len(scene.accounts()) == 1


def test_namespaces_that_share_a_project_share_its_list(scene: Scene) -> None:
    """One a run for all of them, and each keeps to its own accounts."""
    put_central(scene)
    keys = read({"secret": "central", "host": HOST, "projects": {PROJECT: ["*"]}})
    for name in ("a", "b", "c"):
        install(scene, name)
    scene.run(central_keys=keys)
    assert [outcome.result for outcome in scene.watcher.outcomes] == [Result.ROTATED] * 3
    assert scene.openai_session is not None
    lists = [e for e in scene.openai_session.log if e.method == "GET" and e.path.endswith("/service_accounts")]
    assert len(lists) == 1
    assert {account.name for account in scene.openai.accounts(PROJECT)} == {
        scene.named(Ref(name, TARGET.name))["name"] for name in ("a", "b", "c")
    }


def test_namespaces_whose_central_key_has_to_pause_keep_no_place(scene: Scene) -> None:
    """They wait for one key, however many they are; whoever has a key of its own is served meanwhile."""
    put_central(scene)
    keys = read({"secret": "central", "host": HOST, "projects": {PROJECT: ["*"]}})
    crowd = [f"a{i}" for i in range(10)]
    for name in crowd:
        install(scene, name)
    scene.namespace("b")
    scene.openai.add_organization("other")
    scene.openai.add_project("other", "proj_b")
    own = scene.openai.add_admin_key("other")
    scene.apply_documented("b", projectId="proj_b")
    scene.merge("/api/v1/namespaces/b/secrets/openai-admin-secret", {"stringData": {"api-key": own}})
    pause = Rules([Rule(too_many_requests(5), "POST", f".*/{PROJECT}/.*", count=2)], scene.random, Latency(0.05))
    scene.run(central_keys=keys, concurrency=2, openai_faults=pause)
    order = [outcome.target.namespace for outcome in scene.watcher.outcomes]
    assert order[0] == "b"
    assert sorted(order) == [*crowd, "b"]
    assert {outcome.result for outcome in scene.watcher.outcomes} == {Result.ROTATED}


@pytest.mark.parametrize("retry_after", [5, 30])
def test_who_makes_the_most_of_a_shared_key_does_not_keep_the_others_from_rotating_and_deleting(
    scene: Scene, retry_after: int
) -> None:
    """60 targets of one namespace are asked for anew in each run, where OpenAI makes 20 accounts a minute; the one of
    another rotates when it is due, and its superseded accounts go.
    """
    made: list[float] = []

    class Bucket:
        """Faults: so many creates a minute."""

        def fate(self, request: Request) -> Fate:
            if request.method == "POST":
                made[:] = [moment for moment in made if moment > scene.moment() - 60]
                if len(made) >= 20:
                    return too_many_requests(retry_after)
                made.append(scene.moment())
            return Latency(0.05).fate(request)

    put_central(scene)
    keys = read({"secret": "central", "host": HOST, "projects": {PROJECT: ["*"]}})
    for name in ("a", "b"):
        install(scene, name)
    scene.merge(EXTERNAL_SECRET.format("b"), {"spec": {"refreshInterval": "20m"}})
    spec = scene.external_secret(Ref("a", TARGET.name))["spec"]
    kind = {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "spec": spec}
    scene.apply(*(kind | {"metadata": {"name": f"creds-{i}", "namespace": "a"}} for i in range(60)))
    other, rotated, accounts = Ref("b", TARGET.name), 0, 0
    for number in range(12):
        annotations = {"openai-key-rotator.io/rotate": str(number)}
        scene.merge(GENERATOR.format("a"), {"metadata": {"annotations": annotations}})
        began = scene.seconds
        scene.run(central_keys=keys, openai_faults=Bucket())
        rotated += scene.outcome(other).result is Result.ROTATED
        accounts = max(accounts, len(scene.stored_entry(other).history))
        scene.advance(seconds=600 - (scene.seconds - began))
    assert rotated >= 5  # in two hours, of an interval of twenty minutes
    assert accounts <= 3


def test_a_ledger_entry_names_no_admin_secret_of_a_third_namespace(scene: Scene) -> None:
    """The target's, or the ledger's: an entry of another place was moved here, and the key with it."""
    put_central(scene)
    install(scene)
    scene.run(central_keys=for_default())
    path = f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/default.{TARGET.name}"
    name = scene.stored_entry().history[-1].account.name
    scene.merge(path, {"status": {"accounts": {name: {"adminKey": {"namespace": "kube-system"}}}}})
    scene.run(central_keys=for_default())
    assert {p.account.access.admin_key.secret.namespace for p in scene.stored_entry().history} == {LEDGER}
    assert scene.cluster_session is not None
    assert not [exchange for exchange in scene.cluster_session.log if "kube-system" in exchange.path]


def test_a_ledger_that_was_moved_with_its_central_keys_is_adopted_and_goes_on(scene: Scene) -> None:
    """Its entries name admin keys in the namespace that it has left."""
    put_central(scene)
    install(scene)
    scene.run(central_keys=for_default())
    scene.namespace("rotator")
    for plural in ("keyrotations", "secrets"):
        for obj in list(scene.kubernetes.objects(plural, LEDGER)):
            moved = json.loads(json.dumps(dict(obj)))
            moved["metadata"] = {"name": moved["metadata"]["name"], "namespace": "rotator"}
            scene.apply(moved)
    entry = {"secret": "central", "host": HOST, "projects": {PROJECT: ["default"]}}
    options: dict[str, Any] = {
        "ledger_namespace": "rotator",
        "central_keys": central_keys([entry], "rotator", {named_origin(HOST)}),
    }
    scene.run(**options)
    assert scene.outcome().reason == "ForeignLedger"
    scene.adopt(TARGET, yes=True, **options)
    scene.advance(hours=1)
    scene.run(**options)
    assert scene.outcome().reason == "Due"
    scene.advance(minutes=10)
    scene.run(**options)
    assert len(scene.accounts()) == 1
