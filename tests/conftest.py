"""What every test has: the canary, mocked HTTP that works, and the real API server for those that ask for it.

Guarantees: one process of a run has the real API server, started for the first test that needs it. Tests with a cluster
of their own stay together by file. Where it has not been built, tests are skipped, and the summary says so; with
REQUIRE_CLUSTER=1 they fail instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from hypothesis import HealthCheck, settings

from tests.cluster.control_plane import control_plane, find_binaries
from tests.cluster.endpoint import Endpoint

pytest_plugins = ["tests.support.canary"]

REQUIRED = os.environ.get("REQUIRE_CLUSTER") == "1"
HOW = "`make control-plane` builds it (needs Go, takes minutes the first time)"
NEEDS = "needs the real API server"

# No test asserts a duration, and a machine may be busy.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

logging.getLogger("asyncio").setLevel(logging.INFO)  # at DEBUG it names its selector in every failing test's report


@pytest.fixture(scope="session")
def real_api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The real API server, with the real controllers, shared by all tests: use a namespace of your own."""
    if find_binaries(controllers=True) is None:
        pytest.skip(f"no real API server: {HOW}")
    with control_plane(tmp_path_factory.mktemp("control-plane"), controllers=True) as endpoint:
        yield endpoint


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests that need the real API server, however they ask for it."""
    for item in items:
        if {"real_api_server", "node"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.xdist_group("real API server"))
        elif item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if item.get_closest_marker("cluster"):
            item.user_properties.append((NEEDS, True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the real API server is required, a test that goes without it, or without promtool, has failed."""
    report = yield
    if REQUIRED and report.skipped and (item.get_closest_marker("cluster") or item.get_closest_marker("promtool")):
        report.outcome = "failed"
        report.longrepr = f"skipped, but REQUIRE_CLUSTER=1: {report.longreprtext}"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say whether the real API server took part."""
    with_it, without_it = (
        sum(
            (NEEDS, True) in map(tuple, report.user_properties)
            for outcome in outcomes
            for report in terminalreporter.stats.get(outcome, [])
            if isinstance(report, pytest.TestReport)
        )
        for outcomes in (["passed", "failed", "error"], ["skipped"])
    )
    if without_it:
        terminalreporter.write_line(f"real API server: not used, {without_it} tests skipped. {HOW}")
    elif with_it:
        terminalreporter.write_line(f"real API server: used by {with_it} tests")
    else:
        terminalreporter.write_line("real API server: none of these tests needs it")


@pytest.fixture(autouse=True)
def _own_log_handlers() -> Iterator[None]:
    """A handler of the worker's ends with its test: it writes to a stream that is closed with the test."""
    yield
    for handler in list(logging.root.handlers):
        if type(handler).__module__.startswith("worker."):
            logging.root.removeHandler(handler)


class _ClientResponse(aiohttp.ClientResponse):
    """As aioresponses 0.7 makes it: without an argument that aiohttp requires since 3.14."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture(scope="session", autouse=True)
def _aioresponses_for_current_aiohttp() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aioresponses.core.ClientResponse", _ClientResponse)
        yield
