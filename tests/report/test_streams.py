"""A reader that goes away."""

import os

from worker.report.streams import Unbroken


def test_a_reader_that_goes_away_ends_nothing() -> None:
    """`… run | head -1`: what comes later goes nowhere, also at the end of the process."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        unbroken = Unbroken(stream)
        unbroken.write("first\n")
        unbroken.flush()
        assert os.read(reading, 100) == b"first\n"
        os.close(reading)
        for _ in range(3):
            unbroken.write("later\n")
            unbroken.flush()
        assert unbroken.isatty() is False
