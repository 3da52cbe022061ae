"""`python -m tests.simulation`: search for a violation (exit code 1 if there is one), or replay a history in full."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.history import History, Violation
from tests.simulation.search import Found, report, search


def main() -> int:
    options = _options()
    if options.replay is not None:
        return _replay(options.replay)
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories; default 1000")
    parser.add_argument("--first", type=int, default=1, help="the first seed; default 1")
    parser.add_argument("--jobs", type=int, help="processes; default: one per core")
    parser.add_argument("--until-violation", action="store_true", help="stop at the first")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play this one history and print all that happened")
    return parser.parse_args()


def _replay(seed: int) -> int:
    history = History(seed)
    try:
        history.play()
    except Violation as violation:
        print("\n".join(history.trace))
        print(f"\nseed {seed}: {violation}")
        return 1
    print("\n".join(history.trace))
    return 0


if __name__ == "__main__":
    sys.exit(main())
