"""Commands, wiring, signals, exit code. Nothing is decided here.

Exit codes: 0 well; 1 some target failed, or, with --strict, is blocked; 2 usage or configuration; 3 cluster or ledger
out of reach.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from worker.clocks import SystemClock
from worker.concurrency import Stop, where
from worker.errors import OutOfReach, RotatorError
from worker.model import JSON
from worker.ports import Clock, Cluster, Randomness
from worker.settings import POD_NAMESPACE_FILE, Settings, UsageError, parse

if TYPE_CHECKING:
    from worker.job import World
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
    # What a run reads lives until its end: to look through thousands of targets for garbage is a tenth of its CPU.
    gc.set_threshold(50_000)
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
    log = logs.configure(sys.stdout if settings.command == "run" and not _as_table(settings) else sys.stderr)
    client = await connect(
        kubeconfig=settings.kubeconfig,
        context=settings.context,
        in_cluster=settings.in_cluster,
        connections=settings.options.concurrency + 10,
        proxies=settings.proxies,
    )
    async with client:
        cluster = KubernetesApi(client, chance)
        if settings.command == "status":
            return await _status(settings, cluster, clock)
        if settings.command == "adopt":
            return await _adopt(settings, cluster, clock, chance)
        if settings.command == "revoke":
            return await _revoke(settings, cluster, clock, chance)
        return await _run(settings, cluster, clock, chance, log)


async def _status(settings: Settings, cluster: Cluster, clock: Clock) -> int:
    from worker.ledger import Ledger
    from worker.status import as_json, as_text

    ledger = Ledger(cluster, settings.options.ledger_namespace, "")
    uid = None
    with suppress(OutOfReach):  # to look at the ledger is enough; whose it is, is told where that may be read as well
        uid = (await Ledger.open(cluster, ledger.namespace))[0].uid
    entries = await ledger.read_all()
    if _as_table(settings):
        print(as_text(entries, clock.now(), uid))
    else:
        print(json.dumps(as_json(entries, uid), indent=2))
    return 0


async def _adopt(settings: Settings, cluster: Cluster, clock: Clock, chance: Randomness) -> int:
    from worker import logs
    from worker.adopting import adopt
    from worker.adoption_words import as_json, as_text

    stop = _stop(settings)
    async with _asking_openai(settings, cluster, clock, chance, stop) as world:
        adopted = await adopt(settings.options, settings.wanted, world, stop)
    print(logs.redacted(as_text(adopted) if _as_table(settings) else json.dumps(as_json(adopted), indent=2)))
    return 1 if adopted.refused else 0


async def _revoke(settings: Settings, cluster: Cluster, clock: Clock, chance: Randomness) -> int:
    from worker import logs
    from worker.revocation_words import as_json, plan_text, result_text
    from worker.revoking import plan, revoke
    from worker.terminal import agreed, can_ask

    def say(words: str) -> None:
        print(logs.redacted(words), file=sys.stderr, flush=True)

    (target,) = settings.wanted.targets
    options, without = settings.options, settings.without_successor
    stop = _stop(settings)
    async with _asking_openai(settings, cluster, clock, chance, stop) as world:
        say(plan_text(await plan(options, target, world, stop, without_successor=without)))
    if options.dry_run:
        say("nothing was done: it is a dry run")
        return 0
    if not settings.wanted.yes and not agreed("Go on?"):
        say("nothing was done" if can_ask() else "error: there is no terminal to ask on: --yes does it without asking")
        return 1 if can_ask() else 2
    stop = _stop(settings)  # however long the answer took
    async with _asking_openai(settings, cluster, clock, chance, stop) as world:
        revoked = await revoke(options, target, world, stop, say=say, without_successor=without)
    print(logs.redacted(result_text(revoked) if _as_table(settings) else json.dumps(as_json(revoked), indent=2)))
    return 0 if revoked.complete else 1


async def _run(settings: Settings, cluster: Cluster, clock: Clock, chance: Randomness, log: Log) -> int:
    from worker import logs
    from worker.job import run
    from worker.reporting import exit_code, run_fields
    from worker.terminal import TerminalWatcher

    watcher = TerminalWatcher(clock) if _as_table(settings) else logs.LogWatcher(log)
    stop = _stop(settings)
    async with _asking_openai(settings, cluster, clock, chance, stop) as world:
        report: Report = await run(settings.options, world, stop, watcher)
    watcher.finished(report)
    code = exit_code(report, strict=settings.strict)
    _summarise(settings, {**run_fields(report), "exit_code": code})
    return code


def _stop(settings: Settings) -> Stop:
    """Ends the command in time, or when it is asked to."""
    stop = Stop.within(settings.deadline.total_seconds())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.ask)
    return stop


@asynccontextmanager
async def _asking_openai(
    settings: Settings, cluster: Cluster, clock: Clock, chance: Randomness, stop: Stop
) -> AsyncIterator[World]:
    """All that is outside, until the deadline."""
    import aiohttp

    from worker.job import World
    from worker.openai_admin import OpenAIAdminApi

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=settings.options.concurrency),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "openai-key-rotator"},
    )
    try:
        async with session, asyncio.timeout_at(stop.deadline + DISCOVERY_OVERTIME):
            yield World(cluster, OpenAIAdminApi(session, chance, settings.proxies), clock, chance)
    except TimeoutError:
        raise OutOfReach("DeadlineExceeded", "the cluster's objects could not be listed within the deadline") from None


def _summarise(settings: Settings, summary: JSON) -> None:
    """Write the run's summary to where the kubelet reads a pod's termination message, if that was asked for."""
    if settings.summary_file is None or settings.command != "run":
        return
    from worker import logs

    try:
        settings.summary_file.write_text(logs.redacted(json.dumps(summary)) + "\n")
    except OSError as error:  # the run is over, and its log says the same
        print(f"error: --summary-file was not written: {type(error).__name__}, errno {error.errno}", file=sys.stderr)


def _as_table(settings: Settings) -> bool:
    return settings.output == "table" or (settings.output is None and sys.stdout.isatty())


def _fail(settings: Settings, error: RotatorError, code: int) -> int:
    """Say why nothing could be done: as a log line, or in words on a terminal."""
    from worker import logs

    if _as_table(settings) or settings.command != "run":
        print(f"error: {logs.redacted(error.message)}", file=sys.stderr)
    else:
        logs.configure().error("run.failed", reason=error.reason, message=error.message)
    _summarise(settings, {"reason": error.reason, "message": error.message, "exit_code": code})
    return code


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug: its kind and place, without texts and values, which may hold anything."""
    print(f"internal error: {where(error)}: please report it", file=sys.stderr)
