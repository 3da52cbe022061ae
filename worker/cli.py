"""The command line: argv -> one command -> exit code. This module decides nothing.

Exit codes: 0 well; 1 some target failed (see --tenant-failures), or, with --strict, is blocked; 2 usage or
configuration; 3 cluster or ledger out of reach.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
from collections.abc import Sequence
from types import TracebackType

from worker.errors import OutOfReach, RotatorError
from worker.ports import Clock, Randomness
from worker.report.streams import Unbroken
from worker.runtime.clocks import SystemClock
from worker.runtime.for_each import where
from worker.settings.arguments import COMPLETION, PLUGIN, POD_NAMESPACE_FILE, PROG, UsageError, parse
from worker.settings.options import Settings


def kubectl() -> int:
    """`kubectl openai-keys …`: the same commands; kubectl starts `kubectl-openai_keys`."""
    return main(prog=PLUGIN)


def kubectl_complete() -> int:
    """What kubectl asks for at the tab key: it starts `kubectl_complete-openai_keys`."""
    return main([COMPLETION, "--", *sys.argv[1:]])


def main(
    argv: Sequence[str] | None = None,
    *,
    clock: Clock | None = None,
    chance: Randomness | None = None,
    prog: str = PROG,
) -> int:
    """Run a command; its exit code. `clock` and `chance` replace the system's, as the demo does."""
    sys.excepthook = _excepthook
    # Most objects live until the run ends, those of imported modules too: collections over them are a tenth of its CPU.
    gc.set_threshold(50_000)
    out = sys.stdout
    # Whoever pipes into `head` must not end the run. The demo replaces the stream, so it is put back.
    sys.stdout = Unbroken(out)
    try:
        return _main(sys.argv[1:] if argv is None else argv, prog, clock=clock, chance=chance)
    finally:
        sys.stdout.flush()
        sys.stdout = out


def _main(argv: Sequence[str], prog: str, *, clock: Clock | None, chance: Randomness | None) -> int:
    try:
        if argv and argv[0] == COMPLETION and not {"-h", "--help"} & set(argv[1:2]):
            from worker.settings.completion import answer  # asked for at each tab key, and needs no cluster

            print(answer(argv[1:]), end="")
            return 0
        pod_namespace = POD_NAMESPACE_FILE.read_text().strip() or None if POD_NAMESPACE_FILE.is_file() else None
        settings = parse(argv, os.environ, pod_namespace, prog=prog)
    except UsageError as error:
        if error.usage:
            print(error.usage, file=sys.stderr, end="")
        for mistake in error.mistakes:
            print(f"error: {mistake}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_execute(settings, clock or SystemClock(), chance or random.SystemRandom()))
    except OutOfReach as error:
        return _fail(settings, error, 3)
    except RotatorError as error:
        return _fail(settings, error, 2)
    except KeyboardInterrupt:
        # A command that acts has its own way to stop: this is one that reads, or has not begun (a login takes long).
        print("error: interrupted", file=sys.stderr)
        return 130


async def _execute(settings: Settings, clock: Clock, chance: Randomness) -> int:
    """Connect, import the command's module, and execute the command."""
    from worker.commands.session import Session
    from worker.kubernetes.client import KubernetesApi
    from worker.kubernetes.connection import connect
    from worker.report import log_lines

    # Before the first use of a library: this routes its warnings, which it would print otherwise.
    log_lines.configure(sys.stdout if settings.command == "run" and not settings.as_table else sys.stderr)
    client = await connect(
        kubeconfig=settings.kubeconfig,
        context=settings.context,
        in_cluster=settings.in_cluster,
        connections=settings.options.concurrency + 10,
        proxies=settings.proxies,
        now=clock.now,
        # Before anything is done there: another kubectl may look at another cluster.
        say=lambda where: print(f"cluster: {where}", file=sys.stderr),
    )
    async with client:
        session = Session(settings, KubernetesApi(client, chance), clock, chance)
        match settings.command:
            case "status":
                from worker.commands import status

                return await status.execute(session)
            case "adopt":
                from worker.commands.adopt import command as adopt

                return await adopt.execute(session)
            case "revoke" if settings.admin_secret is not None:
                from worker.commands.revoke import admin_key

                return await admin_key.execute(session, settings.admin_secret)
            case "revoke" if settings.forget:
                from worker.commands.revoke import forget

                return await forget.execute(session)
            case "revoke":
                from worker.commands.revoke import command as revoke

                return await revoke.execute(session)
            case "audit":
                from worker.commands.audit import command as audit

                return await audit.execute(session)
            case _:
                from worker.commands import run

                return await run.execute(session)


def _fail(settings: Settings, error: RotatorError, code: int) -> int:
    """Report why the command failed: as a log line, or as text on a terminal."""
    from worker.model.hidden import redacted
    from worker.report import log_lines, termination

    if settings.as_table or settings.command != "run":
        print(f"error: {redacted(error.message)}", file=sys.stderr)
    else:
        log_lines.configure().error("run.failed", reason=error.reason, message=error.message)
    termination.write(settings.summary_file, {"reason": error.reason, "message": error.message, "exit_code": code})
    return code


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the kind and place of a bug, without texts and values, which may hold secrets."""
    print(f"internal error: {where(error)}: please report it", file=sys.stderr)
