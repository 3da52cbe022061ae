"""Standard output whose reader may go away: `openai-key-rotator run | head` must not end the run.

Guarantee: a broken pipe is noticed once; from then on the output goes nowhere.
"""

from __future__ import annotations

import os
from typing import Any, TextIO


class Unbroken:
    """A text stream that survives its reader. All but writing is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        # The descriptor itself is turned: the interpreter flushes what is left at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
