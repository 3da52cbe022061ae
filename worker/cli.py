"""Commands, wiring, signals, exit code. Nothing is decided here.

Exit codes: 0 well; 1 some target failed, or, with --strict, is blocked; 2 usage or configuration; 3 cluster or ledger
out of reach.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from worker.clocks import SystemClock
from worker.concurrency import Stop, where
from worker.errors import OutOfReach, RotatorError
from worker.ports import Clock, Cluster, Randomness
from worker.settings import POD_NAMESPACE_FILE, Settings, UsageError, parse

if TYPE_CHECKING:
    from worker.logs import Log
    from worker.reporting import Report

DISCOVERY_OVERTIME = 5.0
"""Seconds after the deadline until even a list that is being read is given up; all else ends at the deadline."""


def main(argv: Sequence[str] | None = None, *, clock: Clock | None = None, chance: Randomness | None = None) -> int:
    """Run a command; its exit code. `clock` and `chance` replace the system's, as the demo does."""
    sys.excepthook = _excepthook
    try:
        pod_namespace = POD_NAMESPACE_FILE.read_text().strip() or None if POD_NAMESPACE_FILE.is_file() else None
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ, pod_namespace)
    except UsageError as error:
        if error.usage:
            print(error.usage, file=sys.stderr, end="")
        for mistake in error.mistakes:
            print(f"error: {mistake}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_command(settings, clock or SystemClock(), chance or random.SystemRandom()))
    except OutOfReach as error:
        return _fail(settings, error, 3)
    except RotatorError as error:
        return _fail(settings, error, 2)


async def _command(settings: Settings, clock: Clock, chance: Randomness) -> int:
    from worker import logs
    from worker.kubernetes_api import KubernetesApi, connect

    # Before the first library is used: what one warns of is routed, not printed as it comes.
    log = logs.configure(sys.stderr if settings.command == "status" or _as_table(settings) else sys.stdout)
    client = await connect(
        kubeconfig=settings.kubeconfig,
        context=settings.context,
        in_cluster=settings.in_cluster,
        connections=settings.options.concurrency + 10,
    )
    async with client:
        cluster = KubernetesApi(client, chance)
        if settings.command == "status":
            return await _status(settings, cluster, clock)
        return await _run(settings, cluster, clock, chance, log)


async def _status(settings: Settings, cluster: Cluster, clock: Clock) -> int:
    from worker.ledger import Ledger
    from worker.status import as_json, as_text

    ledger = Ledger(cluster, settings.options.ledger_namespace, "")
    entries = await ledger.read_all()
    if _as_table(settings):
        print(as_text(entries, clock.now()))
    else:
        print(json.dumps(as_json(entries), indent=2))
    return 0


async def _run(settings: Settings, cluster: Cluster, clock: Clock, chance: Randomness, log: Log) -> int:
    import aiohttp

    from worker import logs
    from worker.job import World, run
    from worker.openai_admin import OpenAIAdminApi
    from worker.reporting import exit_code
    from worker.terminal import TerminalWatcher

    watcher = TerminalWatcher(clock) if _as_table(settings) else logs.LogWatcher(log)
    stop = Stop.within(settings.deadline.total_seconds())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.ask)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=settings.options.concurrency),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "openai-key-rotator"},
        trust_env=True,
    )
    try:
        async with session, asyncio.timeout_at(stop.deadline + DISCOVERY_OVERTIME):
            world = World(cluster, OpenAIAdminApi(session, chance), clock, chance)
            report: Report = await run(settings.options, world, stop, watcher)
    except TimeoutError:
        raise OutOfReach("DeadlineExceeded", "the cluster's objects could not be listed within the deadline") from None
    watcher.finished(report)
    return exit_code(report, strict=settings.strict)


def _as_table(settings: Settings) -> bool:
    return settings.output == "table" or (settings.output is None and sys.stdout.isatty())


def _fail(settings: Settings, error: RotatorError, code: int) -> int:
    """Say why nothing could be done: as a log line, or in words on a terminal."""
    from worker import logs

    if _as_table(settings) or settings.command == "status":
        print(f"error: {logs.redacted(error.message)}", file=sys.stderr)
    else:
        logs.configure().error("run.failed", reason=error.reason, message=error.message)
    return code


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug: its kind and place, without texts and values, which may hold anything."""
    print(f"internal error: {where(error)}: please report it", file=sys.stderr)
