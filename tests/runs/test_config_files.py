"""The key inside configuration files: what the worker writes, heals, changes and takes away, in whole runs."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import dotenv
import javaproperties
import pytest
import yaml

from sandbox.openai.state import KeyStatus
from sandbox.transport.faults import Rule, request_lost
from tests.support.ledgers import annotation, rule
from tests.support.paths import ENTRY, EXTERNAL_SECRET, NO_WAIT, SECRET
from tests.support.scene import LEDGER, PROJECT, ROOT, TARGET, Killer, Meanwhile, Scene, checked_scene
from worker.kubernetes.secret import CURRENT, MANAGED, PREVIOUS
from worker.model.outcomes import Result
from worker.model.values import JSON, Ref

scene = pytest.fixture(checked_scene)
CONFIG = 'model: gpt-5\nkey: "{{ .api_key }}"\nagain: {{.api_key}}\n'
TEMPLATE = {"config.yaml": CONFIG, "LOG_LEVEL": "info", "EMPTY": ""}


def template(scene: Scene, data: Mapping[str, str | None] | None, **fields: object) -> None:
    """The documented ExternalSecret has this template from now on; None: none."""
    wanted = None if data is None else {"data": dict(data), **fields}
    scene.merge(EXTERNAL_SECRET, {"spec": {"target": {"template": wanted}}})


def values(scene: Scene, ref: Ref = TARGET) -> dict[str, str]:
    """What is in a Secret, as text."""
    secret = scene.secret(ref)
    assert secret is not None
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def put(scene: Scene, data_key: str, value: str | None) -> None:
    """Somebody edits the Secret."""
    encoded = base64.b64encode(value.encode()).decode() if value is not None else None
    scene.merge(SECRET, {"data": {data_key: encoded}})


def key_of(scene: Scene) -> str:
    """The key in the config file, wherever it stands there: the same at both places, and alive."""
    config = values(scene)["config.yaml"]
    found = re.fullmatch(r'model: gpt-5\nkey: "([\w-]+)"\nagain: ([\w-]+)\n', config)
    assert found is not None
    assert found[1] == found[2]
    record = scene.openai.key(found[1])
    assert record is not None
    assert record.status is KeyStatus.ACTIVE
    assert record.account == scene.named()["id"]
    return found[1]


def settle(scene: Scene) -> None:
    """Runs every ten minutes until nothing can be left over; then one account is left, and its key is in the file."""
    for _ in range(12):
        scene.advance(minutes=10)
        scene.run()
    entry = scene.stored_entry()
    assert key_of(scene)
    assert entry.unpublished == ()
    assert scene.account_ids() == {publication.account.id for publication in entry.history}
    assert len(entry.history) == 1


def result(scene: Scene) -> tuple[Result, str]:
    return scene.outcome().result, scene.outcome().reason


@pytest.fixture
def asked(scene: Scene) -> Scene:
    """A target whose user wants a config file; nothing has run yet."""
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})
    template(scene, TEMPLATE)
    return scene


@pytest.fixture
def rotated(asked: Scene) -> Scene:
    """The same, with its first key, which is an hour old."""
    asked.run()
    asked.advance(hours=1)
    return asked


# --- three programs' files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guide() -> dict[str, dict[str, Any]]:
    """The ExternalSecrets of docs/config-files.md, by name."""
    blocks = re.findall(r"```yaml\n(apiVersion.*?)```", (ROOT / "docs" / "config-files.md").read_text(), re.DOTALL)
    return {obj["metadata"]["name"]: obj for block in blocks for obj in yaml.safe_load_all(block)}


def file_of(scene: Scene, obj: dict[str, Any]) -> dict[str, str]:
    """The Secret's data that two rotations make of an ExternalSecret of the guide: the second has another key."""
    scene.apply_documented()
    scene.delete(EXTERNAL_SECRET)
    scene.apply(copy.deepcopy(obj))
    ref = Ref("default", obj["metadata"]["name"])
    scene.run()
    first = values(scene, ref)
    scene.advance(days=2)
    scene.run()
    assert scene.outcome(ref).reason == "Due"
    assert values(scene, ref) != first
    return values(scene, ref)


def is_live(scene: Scene, key: str) -> bool:
    record = scene.openai.key(key)
    return record is not None and record.status is KeyStatus.ACTIVE


def test_litellm_reads_its_yaml(scene: Scene, guide: dict[str, dict[str, Any]]) -> None:
    data = file_of(scene, guide["litellm-config"])
    assert list(data) == ["config.yaml"]
    config = yaml.safe_load(data["config.yaml"])
    keys = {model["litellm_params"].pop("api_key") for model in config["model_list"]}
    assert [is_live(scene, key) for key in keys] == [True]
    assert config == {
        "model_list": [
            {"model_name": "gpt-5", "litellm_params": {"model": "openai/gpt-5"}},
            {"model_name": "text-embedding-3-large", "litellm_params": {"model": "openai/text-embedding-3-large"}},
        ],
        "litellm_settings": {"drop_params": True, "request_timeout": 600},
        "router_settings": {"num_retries": 2},
    }


def test_dotenv_reads_its_file(scene: Scene, guide: dict[str, dict[str, Any]]) -> None:
    data = file_of(scene, guide["dotenv-file"])
    assert list(data) == [".env"]
    found = dotenv.dotenv_values(stream=io.StringIO(data[".env"]), interpolate=True)
    key = found.pop("OPENAI_API_KEY")
    assert key is not None
    assert is_live(scene, key)
    assert found == {"OPENAI_BASE_URL": "https://api.openai.com/v1", "LOG_LEVEL": "info"}


def test_java_reads_its_properties(scene: Scene, guide: dict[str, dict[str, Any]]) -> None:
    data = file_of(scene, guide["spring-properties"])
    assert sorted(data) == ["api_key", "application.properties"]
    found = javaproperties.loads(data["application.properties"])
    assert found.pop("spring.ai.openai.api-key") == data["api_key"]
    assert is_live(scene, data["api_key"])
    assert found == {
        "spring.application.name": "assistant",
        "spring.ai.openai.chat.options.model": "gpt-5",
        "greeting": "Guten Tag, Frau Müller",
    }


# --- what is written ---------------------------------------------------------------------------------------------


def test_the_template_takes_the_place_of_the_generated_data_key(asked: Scene) -> None:
    asked.run()
    assert result(asked) == (Result.ROTATED, "First")
    assert values(asked).keys() == TEMPLATE.keys()
    assert (values(asked)["LOG_LEVEL"], values(asked)["EMPTY"]) == ("info", "")
    assert key_of(asked)


def test_merge_keeps_the_generated_data_key(asked: Scene) -> None:
    template(asked, TEMPLATE, mergePolicy="Merge", engineVersion="v2")
    asked.run()
    assert values(asked).keys() == TEMPLATE.keys() | {"api_key"}
    assert values(asked)["api_key"] == key_of(asked)


def test_the_template_may_have_the_generated_data_key_too(asked: Scene) -> None:
    template(asked, {"api_key": "Bearer {{ .api_key }}"}, mergePolicy="Merge")
    asked.run()
    assert is_live(asked, values(asked)["api_key"].removeprefix("Bearer "))


def test_nothing_is_done_while_all_is_as_it_was_written(rotated: Scene) -> None:
    before = rotated.secret()
    for _ in range(3):
        rotated.run()
        assert result(rotated) == (Result.KEPT, "NotDue")
        rotated.advance(hours=5)
    assert rotated.secret() == before
    assert rotated.openai.mints == 1


def test_ledger_and_annotation_have_digests_alone(rotated: Scene) -> None:
    stored = rotated.kubernetes.find("keyrotations", LEDGER, "default.openai-credentials")
    assert stored is not None
    (account,) = stored["status"]["accounts"].values()
    annotation = rotated.named()
    assert account["rendered"] == annotation["rendered"]
    assert account["keyDigest"] == annotation["keyDigest"]
    assert "dataKey" not in account
    assert "dataKey" not in annotation
    kept = account["rendered"]["values"]
    assert kept.keys() == TEMPLATE.keys()
    assert kept["config.yaml"]["keyAt"] == CONFIG.index("{{")
    assert "keyAt" not in kept["LOG_LEVEL"]
    said = json.dumps([stored, annotation])
    assert "gpt-5" not in said
    assert "info" not in said


@pytest.mark.parametrize("word", ["quote", "b64enc", "printf"])
def test_a_function_is_told_with_its_place(asked: Scene, word: str) -> None:
    template(asked, {"config.yaml": f"a: 1\nkey: {{{{ .api_key | {word} }}}}\n"})
    asked.run()
    assert result(asked) == (Result.BLOCKED, "UnsupportedField")
    message = asked.condition()["message"]
    assert message.startswith(f"spec.target.template.data['config.yaml'], line 2, has {word!r} in braces")
    assert asked.secret() is None
    assert asked.openai.mints == 0


# --- healing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_key", TEMPLATE)
@pytest.mark.parametrize("edit", ["other", "api_key: x\n", None])
def test_each_data_key_is_healed(rotated: Scene, data_key: str, edit: str | None) -> None:
    put(rotated, data_key, edit)
    rotated.run()
    assert result(rotated) == (Result.ROTATED, "KeyMissing")
    assert repr(data_key) in rotated.outcome().message
    assert values(rotated).keys() == TEMPLATE.keys()
    assert (values(rotated)["LOG_LEVEL"], values(rotated)["EMPTY"]) == ("info", "")
    assert key_of(rotated)
    settle(rotated)
    assert len(rotated.accounts()) == 1


def test_a_line_added_to_the_file_keeps_no_account_from_its_application(rotated: Scene) -> None:
    """The key is still in the edited file; its account stays until the next key is in place."""
    old = key_of(rotated)
    put(rotated, "config.yaml", values(rotated)["config.yaml"] + "# mine\n")
    rotated.run(max_wait=NO_WAIT)
    assert is_live(rotated, old)
    assert key_of(rotated) != old


def test_the_label_and_the_annotation_are_written_again(rotated: Scene) -> None:
    before, key = rotated.named(), key_of(rotated)
    gone = {"annotations": {CURRENT: None, PREVIOUS: None}, "labels": {MANAGED: None}}
    rotated.merge(SECRET, {"metadata": gone})
    rotated.run()
    assert result(rotated) == (Result.KEPT, "AnnotationLost")
    assert rotated.named() == before
    assert key_of(rotated) == key


def test_an_annotation_that_somebody_edited_beyond_reading_is_written_again(rotated: Scene) -> None:
    before = rotated.named()
    broken = json.dumps(before | {"rendered": {"template": "x", "values": {"a/b": {}}}})
    rotated.merge(SECRET, {"metadata": {"annotations": {CURRENT: broken}}})
    rotated.run()
    assert rotated.outcome().reason == "AnnotationLost"
    assert rotated.named() == before


def test_an_earlier_secret_put_back_is_healed(rotated: Scene) -> None:
    """As a backup or GitOps would: data and annotation of the key before, whose account is there still."""
    earlier = rotated.secret()
    assert earlier is not None
    rotated.run(force=True, max_wait=NO_WAIT)
    metadata = {"annotations": {CURRENT: earlier["metadata"]["annotations"][CURRENT]}}
    rotated.merge(SECRET, {"data": earlier["data"], "metadata": metadata})
    rotated.run(max_wait=NO_WAIT)
    assert key_of(rotated)
    settle(rotated)
    assert key_of(rotated)
    assert len(rotated.accounts()) == 1


# --- another template --------------------------------------------------------------------------------------------

OTHER = 'model: gpt-5\nkey: "{{ .api_key }}"\nagain: {{ .api_key }}\n'


@pytest.mark.parametrize(
    ("change", "fields", "keys"),
    [
        ({"LOG_LEVEL": "debug"}, {}, ["EMPTY", "LOG_LEVEL", "config.yaml"]),
        ({"LOG_LEVEL": None, "EMPTY": None}, {}, ["config.yaml"]),
        ({"more": "x{{ .api_key }}"}, {}, ["EMPTY", "LOG_LEVEL", "config.yaml", "more"]),
        ({}, {"mergePolicy": "Merge"}, ["EMPTY", "LOG_LEVEL", "api_key", "config.yaml"]),
        ({"config.yaml": None, "new.yaml": CONFIG}, {}, ["EMPTY", "LOG_LEVEL", "new.yaml"]),
    ],
)
def test_another_template_rotates(rotated: Scene, change: dict[str, str], fields: JSON, keys: list[str]) -> None:
    put(rotated, "mine", "somebody's")
    rotated.run()
    assert result(rotated) == (Result.KEPT, "NotDue")
    template(rotated, change, **fields)
    rotated.run()
    assert result(rotated) == (Result.ROTATED, "TemplateChanged")
    assert sorted(values(rotated)) == sorted([*keys, "mine"])
    rotated.advance(minutes=10)
    rotated.run()
    assert result(rotated) == (Result.KEPT, "NotDue")
    assert len(rotated.accounts()) == 1


def test_the_same_template_in_other_words_does_not_rotate(rotated: Scene) -> None:
    """Space in braces has no meaning."""
    template(rotated, {"config.yaml": OTHER})
    rotated.run()
    assert result(rotated) == (Result.KEPT, "NotDue")


def test_a_template_comes_and_goes(scene: Scene) -> None:
    scene.apply_documented()
    scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})
    scene.run()
    scene.advance(hours=1)
    template(scene, TEMPLATE)
    scene.run()
    assert result(scene) == (Result.ROTATED, "TemplateChanged")
    assert sorted(values(scene)) == sorted(TEMPLATE)
    scene.advance(hours=1)
    template(scene, None)
    scene.run()
    assert result(scene) == (Result.ROTATED, "TemplateChanged")
    assert list(values(scene)) == ["api_key"]
    assert scene.live_key()
    scene.advance(minutes=10)
    scene.run()
    assert len(scene.accounts()) == 1


def test_what_others_put_in_place_of_a_text_stays(rotated: Scene) -> None:
    """The worker wrote `info`; it is not its own any more."""
    template(rotated, {"LOG_LEVEL": None})
    put(rotated, "LOG_LEVEL", "debug")
    rotated.run()
    assert values(rotated)["LOG_LEVEL"] == "debug"


def test_a_text_of_others_that_is_the_same_stays(rotated: Scene) -> None:
    put(rotated, "MINE", "info")
    template(rotated, {"LOG_LEVEL": None})
    rotated.run()
    assert sorted(values(rotated)) == ["EMPTY", "MINE", "config.yaml"]


def test_an_annotation_does_not_say_which_data_keys_go(rotated: Scene) -> None:
    """Whoever may annotate the Secret has the worker delete nothing of others'."""
    put(rotated, "mine", "somebody's")
    rendered = rotated.named()["rendered"]
    for data_key in ("mine", "config.yaml"):
        rendered["values"][data_key] = {"digest": "0" * 16, "keyAt": 0}
    rotated.merge(SECRET, annotation(rotated, rendered=rendered))
    template(rotated, {"LOG_LEVEL": None})
    rotated.run()
    assert result(rotated) == (Result.ROTATED, "TemplateChanged")
    assert sorted(values(rotated)) == ["EMPTY", "config.yaml", "mine"]


def test_a_run_that_began_earlier_does_not_put_the_old_template_back(asked: Scene) -> None:
    """It has listed the ExternalSecret before its user changed it, and a later run has served the change since."""
    asked.run()
    asked.advance(hours=1)

    def change() -> None:
        template(asked, {"LOG_LEVEL": "debug"})

    early = Meanwhile(change, "GET", SECRET)
    asked.run(cluster_faults=early)
    assert result(asked) == (Result.KEPT, "NotDue")
    asked.run()
    assert result(asked) == (Result.ROTATED, "TemplateChanged")
    assert asked.openai.mints == 2


# --- who holds the key, and accounts that are gone ---------------------------------------------------------------


def test_a_container_that_reads_the_file_holds_its_key(rotated: Scene) -> None:
    """By `subPath`, by a data key without the key in it, and not by the generated data key's name."""
    volume = {"name": "c", "secret": {"secretName": TARGET.name, "items": [{"key": "config.yaml", "path": "c"}]}}
    mount = {"name": "c", "mountPath": "/c", "subPath": "c"}
    reference = {"secretKeyRef": {"name": TARGET.name, "key": "LOG_LEVEL"}}
    pods: dict[str, JSON] = {
        "file": {"volumeMounts": [mount]},
        "env": {"env": [{"name": "LEVEL", "valueFrom": reference}]},
        "all": {"envFrom": [{"secretRef": {"name": TARGET.name}}]},
    }
    for name, container in pods.items():
        spec = {"nodeName": "node-1", "containers": [{"name": "app", "image": "i", **container}], "volumes": [volume]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        rotated.apply(pod)
        state = {"running": {"startedAt": rotated.now().strftime("%Y-%m-%dT%H:%M:%SZ")}}
        status = {"phase": "Running", "containerStatuses": [{"name": "app", "state": state}]}
        rotated.merge(f"/api/v1/namespaces/default/pods/{name}/status", {"status": status})
    old = key_of(rotated)
    rotated.advance(hours=1)
    rotated.run(force=True)
    rotated.advance(days=3)
    rotated.run()
    assert is_live(rotated, old)
    held = rotated.retired()
    assert held is not None
    assert all(f"{name}/app" in held.message for name in pods)
    for name in pods:
        rotated.delete(f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")
    rotated.run()
    assert not is_live(rotated, old)


@pytest.mark.parametrize("delete", ["account", "key"])
def test_a_dead_key_inside_a_file_is_replaced(rotated: Scene, delete: str) -> None:
    """The worker finds the key in the file again, and asks OpenAI whether it is refused."""
    named = rotated.named()
    if delete == "account":
        rotated.openai.delete_account(PROJECT, named["id"])
    else:
        rotated.openai.delete_key(PROJECT, named["keyId"])
    template(rotated, {"LOG_LEVEL": "debug"})
    rotated.run()
    assert result(rotated)[0] is Result.ROTATED
    assert key_of(rotated)


def test_a_secret_that_nothing_asks_for_keeps_its_account_while_the_key_is_in_the_file(asked: Scene) -> None:
    asked.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": "Orphan"}}})
    asked.run()
    key = key_of(asked)
    asked.delete(EXTERNAL_SECRET)
    asked.merge(SECRET, {"metadata": {"annotations": {CURRENT: None, PREVIOUS: None}}})
    for _ in range(3):
        asked.advance(hours=1)
        asked.run()
    assert len(asked.accounts()) == 1
    for text in (f"{values(asked)['config.yaml']}# mine\n", f"moved: [{key}]"):
        put(asked, "config.yaml", text)
        for _ in range(3):
            asked.advance(hours=10)
            asked.run()
        assert is_live(asked, key)
    put(asked, "config.yaml", "from elsewhere")
    for _ in range(3):
        asked.advance(hours=1)
        asked.run()
    assert asked.accounts() == []


# --- a run that dies, and a lost ledger --------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_whatever_request_a_run_dies_at_the_next_ones_put_all_right(after: bool) -> None:
    """The run that makes the second key is killed at its first request, at its second, and so on."""
    number, killed = 0, True
    while killed:
        scene = Scene()
        scene.apply_documented()
        scene.merge(EXTERNAL_SECRET, {"spec": {"refreshInterval": "0"}})
        template(scene, TEMPLATE)
        scene.run()
        scene.advance(hours=1)
        killed = scene.revoke_killed(Killer(number, after))
        settle(scene)
        scene.assert_nothing_shown()
        number += 1
    assert number > 15


@pytest.mark.parametrize("edit", [False, True], ids=["as written", "edited since"])
def test_a_run_that_could_not_note_its_publication(asked: Scene, edit: bool) -> None:
    """The annotation says what it has published; the next run takes it from there."""
    lost = Rule(request_lost(), "PATCH", ENTRY)
    asked.run(cluster_faults=rule(asked, lost), max_wait=NO_WAIT)
    assert result(asked) == (Result.FAILED, "LedgerNotWritten")
    first = key_of(asked)
    if edit:
        put(asked, "LOG_LEVEL", "debug")
    asked.advance(minutes=10)
    asked.run(max_wait=NO_WAIT)
    assert result(asked) == ((Result.ROTATED, "KeyMissing") if edit else (Result.KEPT, "NotDue"))
    assert (key_of(asked) == first) is not edit
    settle(asked)


def test_an_annotation_with_other_places_than_the_ledgers_tells_no_digests(asked: Scene) -> None:
    """A tenant may write the annotation: what it names is not taken for ours."""
    lost = Rule(request_lost(), "PATCH", ENTRY)
    asked.run(cluster_faults=rule(asked, lost), max_wait=NO_WAIT)
    put(asked, "mine", "somebody's")
    rendered = asked.named()["rendered"]
    rendered["values"]["mine"] = {"digest": "0" * 16, "keyAt": 0}
    asked.merge(SECRET, annotation(asked, rendered=rendered))
    asked.advance(minutes=10)
    asked.run(max_wait=NO_WAIT)
    (publication,) = asked.stored_entry().history
    assert "mine" not in publication.account.values()
    assert publication.account.key_digest is None
    asked.run(force=True)
    assert key_of(asked)


def test_adopt_records_what_the_annotation_says(rotated: Scene) -> None:
    key = key_of(rotated)
    rotated.delete(f"/apis/openai-key-rotator.io/v1alpha1/namespaces/{LEDGER}/keyrotations/default.openai-credentials")
    rotated.run()
    assert result(rotated) == (Result.BLOCKED, "UnknownAccount")
    rotated.adopt(TARGET, yes=True)
    rotated.run()
    assert result(rotated) == (Result.KEPT, "NotDue")
    assert key_of(rotated) == key
    put(rotated, "config.yaml", "other")
    rotated.run()
    assert result(rotated) == (Result.ROTATED, "KeyMissing")
    settle(rotated)
    assert len(rotated.accounts()) == 1


def test_revoke_replaces_the_key_in_the_file(rotated: Scene) -> None:
    old = key_of(rotated)
    rotated.revoke()
    assert not is_live(rotated, old)
    assert key_of(rotated)


def test_audit_knows_the_account(rotated: Scene) -> None:
    rotated.advance(days=1)
    audited = rotated.audit()
    assert "unrecorded" not in repr(audited.findings)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ['"', "$", "\\", "#", "{", ":", "="])
def test_a_key_that_could_break_the_file_is_not_put_into_it(
    asked: Scene, monkeypatch: pytest.MonkeyPatch, character: str
) -> None:
    make = asked.openai._names.key
    monkeypatch.setattr(asked.openai._names, "key", lambda prefix: make(prefix) + character)
    asked.run()
    assert result(asked) == (Result.FAILED, "KeyNotPlain")
    assert asked.secret() is None
    assert asked.accounts() == []
    monkeypatch.undo()
    asked.advance(hours=1)
    asked.run()
    assert key_of(asked)


def test_a_secret_that_would_be_too_large_is_told_before_a_key_is_made(asked: Scene) -> None:
    asked.merge(EXTERNAL_SECRET, {"spec": {"target": {"creationPolicy": "CreateOrMerge"}}})
    others = base64.b64encode(b"x" * (1024 * 1024 - 300)).decode()
    metadata = {"name": TARGET.name, "namespace": "default"}
    asked.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"large": others}})
    asked.run()
    assert result(asked) == (Result.BLOCKED, "SecretTooLarge")
    assert asked.openai.mints == 0
    put(asked, "large", "x" * 1000)
    asked.run()
    assert result(asked) == (Result.ROTATED, "First")
    assert key_of(asked)


def test_the_longest_annotation_of_ours_is_read_again(scene: Scene) -> None:
    """All names as long as Kubernetes has them, and as many data keys and scopes as are honoured."""
    ref = Ref("n" * 63, "s" * 253)
    scene.namespace(ref.namespace)
    scene.apply_documented(ref.namespace, serviceAccountNamePrefix="p" * 20)
    variable = "V" * 253
    data = {f"{number:02}" + "k" * 251: "x" * 100 + f"{{{{ .{variable} }}}}" for number in range(50)}
    obj = scene.external_secret(Ref(ref.namespace, TARGET.name))
    (source,) = copy.deepcopy(obj["spec"]["dataFrom"])
    source["rewrite"] = [{"regexp": {"source": "api_key", "target": variable}}]
    scopes = ",".join(f"api.scope.{number:02}" for number in range(39))
    target = {"name": ref.name, "template": {"mergePolicy": "Merge", "data": data}}
    patch = {
        "metadata": {"annotations": {"openai-key-rotator.io/key-scopes": scopes}},
        "spec": {"refreshInterval": "0", "dataFrom": [source], "target": target},
    }
    scene.merge(f"/apis/external-secrets.io/v1/namespaces/{ref.namespace}/externalsecrets/{TARGET.name}", patch)
    for reason in ("First", "NotDue", "NotDue"):
        scene.run()
        assert scene.outcome(ref).reason == reason, scene.outcome(ref).message
        scene.advance(hours=1)
