"""The pure parts of the benchmarks: bounds, fits, tables, patterns. No test depends on how fast anything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import against
from benchmarks.clusters import cpu_in, requests_in
from benchmarks.figures import Row, fit, per_target, pipeline, rows_table, table
from benchmarks.fleet import aged
from benchmarks.patterns import Made, Pattern, Step, pattern
from benchmarks.picture import picture
from benchmarks.processes import Build
from benchmarks.profile import package
from benchmarks.recording import record
from benchmarks.results import comparison, document, fits
from benchmarks.start import by_package
from benchmarks.targets import places, tenants

LEDGER = "/apis/openai-key-rotator.io/v1alpha1/namespaces/openai-key-rotator/keyrotations"
ENTRY = f"{LEDGER}/bench-0000.openai-0000"


def row(targets: int, wall: float, *, replay: float | None = 5.0, pipeline: float = 1.0, latency: float = 0.05) -> Row:
    """A row with all targets due."""
    asked, at_openai = {"GET secrets": 2 * targets}, {"GET models": targets}
    measured = Row("all due", targets, targets, latency, wall, wall - 0.5, 1.0, 80.0, asked, at_openai, 0.1)
    return Row(
        **{name: getattr(measured, name) for name in measured.__slots__} | {"pipeline": pipeline, "replay": replay}
    )


def test_a_run_is_recorded(tmp_path: Path) -> None:
    """On the sandbox: whatever the worker asks for is passed on, and the idle run asks for less than the due one."""
    due, idle = record(tmp_path, real=False)
    kinds = [{step.kind for step in one.per_target("kubernetes")} for one in (due, idle)]
    assert kinds[1] == {"GET secrets"} < kinds[0]
    assert {"POST service_accounts", "DELETE service_accounts"} <= {step.kind for step in due.per_target("openai")}


@pytest.mark.parametrize(("targets", "batches"), [(1, 1), (50, 1), (51, 2), (500, 10)])
def test_a_pipeline_is_as_long_as_its_batches(targets: int, batches: int) -> None:
    assert pipeline(targets, 50, 0.25) == pytest.approx(batches * 0.25)


def test_the_bound_is_the_larger_of_the_two() -> None:
    assert row(500, 10.0).ratio == pytest.approx(2.0)
    assert row(500, 10.0, pipeline=8.0).ratio == pytest.approx(1.25)
    assert row(500, 10.0, replay=None).ratio is None


def test_a_comparison_with_another_build_tells_the_ratio_and_what_was_aimed_at() -> None:
    builds = (Build("83f16d5", Path(), "python"), Build("this", Path(), "python"))
    lines = against.text(
        builds, [{"all due: wall, s": 4.0, "x": 1.0}, {"all due: wall, s": 3.0, "x": 1.5}]
    ).splitlines()
    assert [line.split() for line in lines] == [
        ["83f16d5", "this", "ratio", "aim"],
        ["all", "due:", "wall,", "s", "4.00", "3.00", "0.75", "<=", "0.6"],
        ["x", "1.00", "1.50", "1.50"],
    ]


def test_a_line_is_fitted() -> None:
    line = fit([(1, 3.0), (50, 101.0), (500, 1001.0)])
    assert line is not None
    assert (line.start, line.each, line.explains) == pytest.approx((1.0, 2.0, 1.0))
    assert fit([(50, 1.0), (50, 2.0)]) is None


def test_tables_are_aligned_and_say_all() -> None:
    assert table(["a", "b"], [["long", "1"], ["x", "100"]]) == "a       b\nlong    1\nx     100"
    assert len({len(line) for line in rows_table([row(50, 1.0), row(5000, 123.0)]).splitlines()}) == 1
    assert per_target({"GET secrets": 1010}, 500) == {"GET secrets": 2.02}


def test_the_document_and_the_picture_hold_every_size() -> None:
    rows = [row(targets, targets / 50, latency=latency) for targets in (1, 50, 500) for latency in (0.0, 0.05)]
    about = {"at": "now", "api_server": "sandbox", "cores": 2, "python": "3", "seconds": 1, "load_before": 0.1}
    text = document(about, rows, "start")
    assert all(words in text for words in (comparison(rows), *fits(rows)))
    drawn = picture(rows, "a < b")
    assert all(f">{words}<" in drawn for words in ("1", "50", "500", "all due", "a &lt; b"))


def test_targets_are_spread_over_tenants() -> None:
    assert tenants(1) == tenants(50) == 1
    assert [(number, len(members)) for number, members in places(120)] == [(0, 50), (1, 50), (2, 20)]


def test_requests_are_read_from_metrics() -> None:
    metrics = """
apiserver_request_total{code="200",resource="secrets",subresource="",verb="LIST"} 3
apiserver_request_total{code="200",resource="externalsecrets",subresource="status",verb="PATCH"} 5e+02
apiserver_request_total{code="200",resource="secrets",subresource="",verb="WATCH"} 9
apiserver_request_total{code="200",resource="leases",subresource="",verb="GET"} 7
"""
    assert requests_in(metrics) == {"GET secrets": 3, "PATCH externalsecrets/status": 500}
    assert cpu_in(metrics + "process_cpu_seconds_total 12.5\n") == 12.5


def test_a_history_is_moved_into_the_past() -> None:
    status = {
        "accounts": {"app_1": {"id": "user-1", "publishedAt": "2026-11-25T10:00:00Z"}},
        "since": "2026-11-25T10:00:00Z",
        "lastRotatedAt": "2026-11-25T10:00:00Z",
        "nextRotationAt": "2026-11-25T11:00:00Z",
        "oldestKeyAt": "2026-11-25T10:00:00Z",
    }
    moved = aged(status)
    assert moved["accounts"] == {"app_1": {"publishedAt": "2026-11-25T08:00:00Z"}}
    assert moved["nextRotationAt"] == "2026-11-25T09:00:00Z"


STEPS = [
    Step("kubernetes", "GET", f"{LEDGER}?limit=200"),
    Step("kubernetes", "GET", "/api/v1/namespaces/bench-0000/secrets/openai-admin-secret"),
    Step("openai", "GET", "/v1/organization/projects/project-0000/service_accounts?limit=100"),
    Step("kubernetes", "PATCH", ENTRY, '{"metadata": {"resourceVersion": "12"}, "accounts": {"app_aaaaaaaaaa": 1}}'),
    Step("openai", "POST", "/v1/organization/projects/project-0000/service_accounts", '{"name": "app_aaaaaaaaaa"}'),
    Step("kubernetes", "GET", f"{LEDGER}?limit=200"),
    Step("openai", "DELETE", f"/v1/organization/projects/project-0000/service_accounts/user-{'x' * 24}"),
]


def test_a_recording_becomes_a_pattern() -> None:
    found = pattern(STEPS)
    scopes = [(len(phase.run), len(phase.tenant), len(phase.target)) for phase in found.phases]
    assert scopes == [(1, 2, 2), (1, 0, 1)]
    assert Pattern.of_text(found.text()) == found
    assert [step.kind for step in found.per_target("openai")] == ["POST service_accounts", "DELETE service_accounts"]


def test_a_pattern_becomes_another_target() -> None:
    made = Made(7, 361, "0123456789abcdef", versions={f"{LEDGER}/bench-0007.openai-0361": "99"})
    path = made.path(STEPS[3])
    assert path == f"{LEDGER}/bench-0007.openai-0361"
    body = made.body(STEPS[3], path)
    assert body == '{"metadata": {"resourceVersion": "99"}, "accounts": {"app_0123456780": 1}}'
    assert made.body(STEPS[4], "") == '{"name": "app_0123456780"}', "the same account has the same name everywhere"
    answer = b'{"id": "user-1", "api_key": {"id": "key_1", "value": "v"}}'
    made.learn("", STEPS[4], answer)
    assert made.path(STEPS[6]) == "/v1/organization/projects/project-0007/service_accounts/user-1"


def test_packages_are_told_by_their_files() -> None:
    assert package("/x/lib/python3.11/site-packages/aiohttp/client.py:get") == "aiohttp"
    assert package("/x/lib/python3.11/asyncio/events.py:run") == "asyncio (Python's own)"
    assert package("/x/worker/job.py:run") == "worker"
    report = (
        "import time: self [us] | cumulative | imported package\nimport time:       500 |        900 |   aiohttp.client"
    )
    assert by_package(report) == {"aiohttp": 0.5}
