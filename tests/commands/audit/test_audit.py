"""Whole audits of the embedded APIs: what is found, with which admin keys, and that nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.http_server import SandboxServer
from sandbox.transport.faults import Fate, Rule, Rules, answered, delivered
from sandbox.transport.wire import Request, Response
from tests.support.audits import LIKE_OURS, SEARCH, STRANGER, furnish
from tests.support.command_line import run_py
from tests.support.ledger_secrets import fallback_key, granted_central_key
from tests.support.paths import ADMIN_SECRET, ENTRY, EXTERNAL_SECRET
from tests.support.scene import HOST, LEDGER, PROJECT, TARGET, Scene, checked_scene, documented
from worker.commands.audit.findings import FindingKind
from worker.commands.audit.inventory import Standing
from worker.commands.audit.page import page_pieces
from worker.commands.audit.report import Audit, AuditedLine, exit_code, summary
from worker.commands.audit.words import as_text, json_pieces
from worker.model.values import Ref

scene = pytest.fixture(checked_scene)
SEVERAL = timedelta(days=30)


@pytest.fixture
def furnished(scene: Scene) -> Scene:
    furnish(scene)
    return scene


class Asked:
    """Faults: notes which admin key asks about what, and lets every request through."""

    def __init__(self) -> None:
        self.paths: list[tuple[str, str]] = []

    def fate(self, request: Request) -> Fate:
        self.paths.append((request.bearer or "", request.path))
        return delivered()


def lines_of(found: Audit, standing: Standing) -> list[AuditedLine]:
    return [item for item in found.lines if item.line.standing is standing]


def kinds(item: AuditedLine) -> list[FindingKind]:
    return [finding.kind for finding in item.findings]


def document(found: Audit) -> Any:
    return json.loads("".join(json_pieces(found)))


# --- what there is


def test_each_account_and_key_is_told_by_how_it_stands_to_the_ledger(furnished: Scene) -> None:
    """Whose it is, whether it is current, who holds it, whether anybody records it."""
    found = furnished.audit()
    (held,) = lines_of(found, Standing.SUPERSEDED)
    assert (held.line.target, held.line.held, held.line.own) == (TARGET, "1: my-app/app", True)
    current = lines_of(found, Standing.CURRENT)
    assert [item.line.target for item in current] == [TARGET, Ref(SEARCH, TARGET.name)]
    assert all(item.line.key is not None and item.line.own for item in current)
    assert [item.line.account_name for item in lines_of(found, Standing.RESEMBLING)] == [LIKE_OURS]
    assert [item.line.account_name for item in lines_of(found, Standing.UNRECORDED)] == [STRANGER]
    (users,) = lines_of(found, Standing.USERS)
    assert users.line.key is not None
    assert users.line.key.name == "laptop"
    assert len(found.lines) == 6


def test_what_is_forgotten_or_never_ends_is_found_and_what_is_well_is_not(furnished: Scene) -> None:
    found = furnished.audit()
    told = {item.line.account_name: kinds(item) for item in found.lines if item.findings}
    assert told == {
        LIKE_OURS: [FindingKind.FORGOTTEN, FindingKind.NO_END],
        STRANGER: [FindingKind.NO_END],
        "Human": [FindingKind.NO_END],
    }


def test_a_deleted_account_and_a_key_made_by_hand_are_found(furnished: Scene) -> None:
    searched = furnished.stored_entry(Ref(SEARCH, TARGET.name)).history[-1].account.id
    assert searched is not None
    furnished.openai.delete_account(PROJECT, furnished.named()["id"])
    furnished.openai.add_key(PROJECT, searched, "by hand")
    furnished.advance(minutes=1)
    found = furnished.audit()
    (gone,) = lines_of(found, Standing.GONE)
    assert gone.line.target == TARGET
    assert kinds(gone) == [FindingKind.GONE]
    (foreign,) = [item for item in found.lines if FindingKind.FOREIGN_KEY in kinds(item)]
    assert (foreign.line.target, foreign.line.own) == (Ref(SEARCH, TARGET.name), False)


def test_a_deleted_key_of_a_living_account_is_found(furnished: Scene) -> None:
    furnished.openai.delete_key(PROJECT, furnished.named()["keyId"])
    (gone,) = [item for item in furnished.audit().lines if FindingKind.GONE in kinds(item)]
    assert gone.line.account_id == furnished.named()["id"]


def test_what_an_archived_project_had_is_gone(furnished: Scene) -> None:
    furnished.openai.archive(PROJECT)
    found = furnished.audit()
    assert found.unasked == ()
    assert {item.line.standing for item in found.lines} == {Standing.GONE}


def test_the_audit_log_tells_who_made_and_who_deleted(furnished: Scene) -> None:
    """Of what is unrecorded, and of what is gone; of nothing without --since."""
    furnished.openai.delete_account(PROJECT, furnished.named()["id"])
    furnished.advance(minutes=1)
    found = furnished.audit(since=SEVERAL)
    (forgotten,) = lines_of(found, Standing.RESEMBLING)
    assert forgotten.made is not None
    assert forgotten.made.actor == "human@example.com"
    (gone,) = lines_of(found, Standing.GONE)
    assert gone.deleted is not None
    assert gone.deleted.actor == "human@example.com"
    assert "made by human@example.com" in as_text(found)
    assert all(item.made is None and item.deleted is None for item in furnished.audit().lines)
    assert "GET audit_logs" not in furnished.requests()


def test_an_audit_log_that_may_not_be_read_is_a_note(furnished: Scene) -> None:
    """All else is told."""
    furnished.openai.restrict(furnished.admin_key, "read", "write", "admin_keys")
    found = furnished.audit(since=SEVERAL)
    assert len(found.lines) == 6
    (note,) = found.notes
    assert note.startswith("the audit log was not read with key 'api-key' of Secret default/openai-admin-secret: ")


def test_the_audit_log_is_asked_in_questions_that_fit_into_a_url(furnished: Scene) -> None:
    for number in range(60):
        furnished.openai.add_account(PROJECT, f"stranger-{number}")
    found = furnished.audit(since=SEVERAL)
    assert furnished.requests().count("GET audit_logs") >= 3
    assert all(item.made is not None for item in lines_of(found, Standing.UNRECORDED))


# --- with which keys


def test_a_project_is_asked_about_with_its_own_admin_key_alone(furnished: Scene) -> None:
    """Not with the fallback, whatever a tenant's generator names; nor with another tenant's."""
    own, fallback = furnished.openai.add_organization("rival"), furnished.openai.add_admin_key("acme")
    furnished.openai.add_project("acme", "proj_of_acme")
    furnished.namespace("rival")
    for obj in documented(own, HOST):
        obj["metadata"]["namespace"] = "rival"
        if obj["kind"] == "OpenAI":
            obj["spec"]["projectId"] = "proj_of_acme"
        furnished.apply(obj)
    asked = Asked()
    found = furnished.audit(openai_faults=asked, fallback_admin_key=fallback_key(furnished, fallback))
    about = {path.split("/")[4]: key for key, path in asked.paths if "/projects/" in path}
    assert about == {PROJECT: furnished.admin_key, "proj_of_acme": own}
    assert fallback not in {key for key, _ in asked.paths}
    ((project, why),) = found.unasked
    assert project.id == "proj_of_acme"
    assert why.startswith("OpenAI refused to list accounts: no such project")


def test_an_admin_secret_that_is_gone_is_told_and_not_replaced(furnished: Scene) -> None:
    """Of both namespaces: the project has another one that serves while only one is gone."""
    furnished.delete(ADMIN_SECRET)
    assert furnished.audit().unasked == ()
    furnished.delete(ADMIN_SECRET.replace("default", SEARCH))
    fallback = furnished.openai.add_admin_key("acme")
    asked = Asked()
    found = furnished.audit(openai_faults=asked, fallback_admin_key=fallback_key(furnished, fallback))
    assert asked.paths == []
    ((_, why),) = found.unasked
    assert "Secret default/openai-admin-secret with the admin key does not exist" in why
    assert f"Secret {SEARCH}/openai-admin-secret with the admin key does not exist" in why
    assert exit_code(found, strict=True) == 1
    assert exit_code(found, strict=False) == 0


def test_a_granted_project_that_no_generator_uses_is_asked_about(scene: Scene) -> None:
    """With the central key that the operator's file names for it."""
    granted = granted_central_key(scene)
    scene.openai.add_account(PROJECT, STRANGER)
    found = scene.audit(central_keys=granted)
    assert [item.line.account_name for item in found.lines] == [STRANGER]
    assert [item.ref.secret for item in found.admin_keys] == [Ref(LEDGER, "central")]


def test_a_project_that_only_the_ledger_names_is_asked_about(furnished: Scene) -> None:
    """Its generator and its source are gone."""
    furnished.delete(EXTERNAL_SECRET)
    furnished.delete("/apis/generators.external-secrets.io/v1alpha1/namespaces/default/openais/openai-generator")
    found = furnished.audit(namespaces=("default",))
    assert [item.line.target for item in lines_of(found, Standing.CURRENT)][:1] == [TARGET]
    (dangling,) = [item for item in found.lines if item.line.target == TARGET and item.findings]
    assert [finding.message for finding in dangling.findings] == [
        "never ends, and nothing asks for its Secret any more"
    ]


def test_an_audit_of_one_namespace_looks_at_its_projects_alone(furnished: Scene) -> None:
    found = furnished.audit(namespaces=("elsewhere",))
    assert (found.lines, found.projects) == ((), 0)
    assert furnished.openai_session is not None
    assert furnished.openai_session.log == []


# --- what it does not do


def test_an_audit_changes_nothing(furnished: Scene) -> None:
    """It reads, and that is all: no write of any kind, at OpenAI or in the cluster."""
    furnished.audit(since=SEVERAL)
    assert {kind.split()[0] for kind in furnished.requests()} == {"GET"}


def test_one_project_that_does_not_answer_hides_no_other(furnished: Scene) -> None:
    furnished.openai.add_project("acme", "proj_2")
    furnished.namespace("second")
    furnished.apply_documented("second", projectId="proj_2")
    refused = answered(Response.of_json(500, {"error": {"message": "no"}}))
    faults = Rules((Rule(refused, "GET", ".*/proj_2/.*"),), furnished.random)
    found = furnished.audit(openai_faults=faults)
    assert len(found.lines) == 6
    assert [project.id for project, _ in found.unasked] == ["proj_2"]
    assert "not asked about (1):\n  project proj_2 at" in as_text(found)


def test_a_project_that_looks_empty_is_not_believed(furnished: Scene) -> None:
    """None of the accounts that the ledger records is there: a replica without data may have answered."""
    empty = answered(Response.of_json(200, {"data": [], "has_more": False}))
    faults = Rules((Rule(empty, "GET", ".*/service_accounts"),), furnished.random)
    found = furnished.audit(openai_faults=faults)
    ((_, why),) = found.unasked
    assert "shows none of the accounts that the ledger records" in why


def test_an_unreadable_entry_is_told_with_what_follows(furnished: Scene) -> None:
    name = furnished.named()["name"]
    furnished.merge(ENTRY, {"status": {"accounts": {name: {"projectId": "../evil"}}}})
    found = furnished.audit()
    (note,) = found.notes
    assert note.startswith("ledger entry default.openai-credentials cannot be read, so its accounts look unrecorded")


# --- admin keys


def test_an_admin_key_that_ends_soon_or_is_old_is_found(furnished: Scene) -> None:
    """With its end and its last use, which is the worker's."""
    now = furnished.now()
    furnished.openai.expire_admin_key(furnished.admin_key, now + timedelta(days=10))
    furnished.openai.date_admin_key(furnished.admin_key, now - timedelta(days=200))
    found = furnished.audit()
    admin = found.admin_keys[0]
    assert admin.facts is not None
    assert admin.facts.last_used_at is not None
    assert [finding.kind for finding in admin.findings] == [
        FindingKind.ADMIN_KEY_EXPIRING,
        FindingKind.ADMIN_KEY_OLD,
    ]
    assert furnished.requests().count("GET admin_api_keys") == 1


def test_an_admin_key_that_may_not_be_listed_is_told_as_unknown(furnished: Scene) -> None:
    furnished.openai.restrict(furnished.admin_key, "read", "write")
    found = furnished.audit()
    assert len(found.lines) == 6
    assert found.admin_keys[0].problem.startswith(
        "OpenAI refused to list admin keys: the admin key lacks the permission"
    )
    assert found.admin_keys[0].findings == ()


# --- how it is told


def test_the_table_tells_every_key_and_below_it_what_to_do(furnished: Scene) -> None:
    text = as_text(furnished.audit())
    rows = [line for line in text.splitlines() if line.startswith(PROJECT)]
    assert len(rows) == 6
    assert "superseded, held (1: my-app/app)" in text
    assert "Forgotten (1): no run deletes it: record it (openai-key-rotator adopt), or delete it at OpenAI" in text
    assert text.splitlines()[-1] == "4 findings in 5 accounts and 6 keys of 1 project"
    assert "use by somebody else cannot be told apart" in text


def test_json_tells_the_same_as_values(furnished: Scene) -> None:
    found = furnished.audit(since=SEVERAL)
    told = document(found)
    assert told["summary"] == summary(found)
    assert told["summary"]["states"] == {
        "current": 2,
        "superseded": 1,
        "unpublished": 0,
        "gone": 0,
        "resembling": 1,
        "unrecorded": 1,
        "users": 1,
    }
    assert len(told["keys"]) == 6
    (forgotten,) = [item for item in told["keys"] if item["state"] == "resembling"]
    assert forgotten["account"]["name"] == LIKE_OURS
    assert forgotten["made"]["by"] == "human@example.com"
    assert [finding["kind"] for finding in forgotten["findings"]] == ["Forgotten", "NoEnd"]
    assert [admin["id"] for admin in told["adminKeys"]] == ["key_admin0001", "key_admin0001"]


def test_nothing_to_audit_is_told_as_such(scene: Scene) -> None:
    found = scene.audit()
    assert as_text(found) == "no keys\n\nno findings in 0 accounts and 0 keys of 0 projects"
    assert document(found)["keys"] == []
    assert "Nothing was found." in "".join(page_pieces(found))
    assert exit_code(found, strict=True) == 0


def test_findings_end_a_strict_audit_with_one(furnished: Scene) -> None:
    found = furnished.audit()
    assert (exit_code(found, strict=True), exit_code(found, strict=False)) == (1, 0)


def test_a_text_of_openais_stays_one_cell_of_one_line(furnished: Scene) -> None:
    """Line ends, terminal sequences and what looks like a key are not passed on."""
    furnished.openai.add_account(PROJECT, "x\n\x1b[2J sk-admin-abcdefgh <b>")
    found = furnished.audit()
    (row,) = [line for line in as_text(found).splitlines() if "x??[2J" in line and line.startswith(PROJECT)]
    assert row.count(PROJECT) == 1
    page = "".join(page_pieces(found))
    assert "&lt;b&gt;" in page
    assert "sk-admin-abcdefgh" not in page


# --- as a user calls it


@pytest.fixture
def served(scene: Scene) -> Iterator[SandboxServer]:
    """The documented objects behind HTTP, and an account that nobody records."""
    with SandboxServer(scene.kubernetes, scene.openai) as server:
        for obj in documented(scene.admin_key, server.openai_url):
            scene.apply(obj)
        scene.openai.add_account(PROJECT, STRANGER)
        yield server


def test_run_py_audits(scene: Scene, served: SandboxServer, tmp_path: Path) -> None:
    """Table, JSON and page; --strict and the summary file."""
    kubeconfig, allowed = served.write_kubeconfig(tmp_path / "kubeconfig"), {"ROTATOR_ALLOW_HOST": served.openai_url}
    assert run_py(kubeconfig, **allowed).returncode == 0
    shown = run_py(kubeconfig, "audit", "--output", "table", **allowed)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-1] == "1 finding in 2 accounts and 2 keys of 1 project"
    told = json.loads(run_py(kubeconfig, "audit", "--unused", "7d", "--since", "30d", **allowed).stdout)
    assert {item["state"] for item in told["keys"]} == {"current", "unrecorded"}
    summary_file = tmp_path / "summary"
    page = run_py(kubeconfig, "audit", "--output", "html", "--strict", "--summary-file", str(summary_file), **allowed)
    assert page.returncode == 1
    assert page.stdout.startswith("<!DOCTYPE html>")
    assert page.stdout.endswith("</html>\n")
    written = json.loads(summary_file.read_text())
    assert (written["findings"], written["by_finding"], written["exit_code"]) == (1, {"NoEnd": 1}, 1)
    assert len(summary_file.read_bytes()) < 4096


def test_an_audit_that_cannot_begin_says_so_in_its_summary(tmp_path: Path) -> None:
    """The termination message of its pod."""
    done = run_py(None, "audit", "--summary-file", str(tmp_path / "summary"))
    assert done.returncode == 3
    assert json.loads((tmp_path / "summary").read_text())["exit_code"] == 3
