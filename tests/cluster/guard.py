"""Run a program until it ends or this process's standard input does.

Guarantee: the program does not outlive whoever holds the other end of the pipe, not even where that one is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the program named by the arguments; its exit code."""
    # Ctrl-C reaches the program as well; its end is then waited for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def kill_with_owner() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        program.kill()

    threading.Thread(target=kill_with_owner, daemon=True).start()
    return program.wait()


if __name__ == "__main__":
    sys.exit(main())
