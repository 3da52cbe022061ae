"""Run a command and say what it took: `python -I -S measured.py RESULT COMMAND...` writes wall, CPU and peak memory.

A process of its own, as small as it can be: the kernel counts the memory of whoever starts a process into that
process's peak. Standard library only.
"""

import json
import os
import sys
import time


def main() -> None:
    """Run the command; its exit code is this one's."""
    result, *command = sys.argv[1:]
    begun = time.monotonic()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    took = {
        "wall": time.monotonic() - begun,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss / 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    with open(result, "w") as file:  # noqa: PTH123 (pathlib is an import of megabytes)
        json.dump(took, file)


if __name__ == "__main__":
    main()
