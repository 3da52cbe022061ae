"""`python -m tests.simulation`: search for a violation (exit code 1 if there is one), or replay a history in full.

`--kill-matrix` kills a run at each of its requests; `--mutations` breaks the worker on purpose, and fails where the
search does not notice.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.history import History, Violation
from tests.simulation.kill_matrix import CASES, Killed, kill_case
from tests.simulation.mutations import MUTATIONS, search_with
from tests.simulation.search import Found, report, search


def main() -> int:
    options = _options()
    if options.replay is not None:
        return _replay(options.replay)
    if options.kill_matrix:
        return _kill_matrix(options.jobs)
    if options.mutations:
        return _mutations(options.jobs)
    return _search(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories; default 1000")
    parser.add_argument("--first", type=int, default=1, help="the first seed; default 1")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes; default: one per core")
    parser.add_argument("--until-violation", action="store_true", help="stop at the first")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play this one history and print all that happened")
    parser.add_argument("--kill-matrix", action="store_true", help="kill a run at each of its requests")
    parser.add_argument("--mutations", action="store_true", help="break the worker on purpose; is it noticed?")
    return parser.parse_args()


def _search(options: argparse.Namespace) -> int:
    begun, found = time.monotonic(), Found()
    for part in search(range(options.first, options.first + options.seeds), jobs=options.jobs):
        found.add(part)
        if sys.stderr.isatty():
            print(f"\r{found.histories} histories, {len(found.violations)} violations", end="", file=sys.stderr)
        if found.violations and options.until_violation:
            break
    print(report(found))
    print(f"\nseeds {options.first} to {options.first + found.histories - 1} in {time.monotonic() - begun:.0f} s")
    return 1 if found.violations else 0


def _replay(seed: int) -> int:
    history, failure = History(seed), None
    try:
        history.play()
    except Violation as violation:
        failure = violation
    print("\n".join(history.trace))
    if failure is not None:
        print(f"\nseed {seed}: {failure}")
    return 0 if failure is None else 1


def _kill_matrix(jobs: int) -> int:
    total = Killed(0, [])
    with ProcessPoolExecutor(jobs) as pool:
        for (situation, when, followed), killed in zip(CASES, pool.map(kill_case, CASES), strict=True):
            follower = "followed by another run" if followed else "alone"
            clean = killed.kills - len(killed.failures)
            print(f"{clean} of {killed.kills} kills ended clean: {situation.__name__}, {when.value}, {follower}")
            total.kills += killed.kills
            total.failures += killed.failures
    print("\n".join(["", f"{total.kills} kills, {len(total.failures)} did not end clean", *total.failures]))
    return 1 if total.failures else 0


def _mutations(jobs: int) -> int:
    survived = []
    with ProcessPoolExecutor(jobs) as pool:
        for mutation, caught in zip(MUTATIONS, pool.map(search_with, MUTATIONS), strict=True):
            how = f"caught after {caught.histories} histories: {caught.violation}" if caught.violation else "SURVIVED"
            print(f"{mutation.invariant}  {mutation.name}: {how}", flush=True)
            survived += [] if caught.violation else [mutation.name]
    print(f"\n{len(MUTATIONS) - len(survived)} of {len(MUTATIONS)} mutations caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
