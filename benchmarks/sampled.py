"""`python -m benchmarks.sampled RESULT PROGRAM [ARGUMENT...]`: run a program and look, every few milliseconds of CPU,
at where it is.

Unlike cProfile this costs next to nothing, so what it shows is how the time is really spread; C code counts for the
Python function that called it.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY = 0.002
"""Seconds of CPU; the kernel rounds it up to its own tick."""


def main() -> None:
    """Run the program as it would run by itself; the stacks seen go to RESULT, when it ends."""
    result, program, *arguments = sys.argv[1:]
    seen: Counter[tuple[str, ...]] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            code = frame.f_code
            stack.append(f"{code.co_filename}:{code.co_qualname}")
            frame = frame.f_back
        seen[tuple(stack)] += 1

    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0, 0)
        Path(result).write_text(json.dumps([[list(stack), count] for stack, count in seen.items()]))


if __name__ == "__main__":
    main()
