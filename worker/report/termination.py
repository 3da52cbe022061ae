"""A run's summary as a file: the kubelet shows it as the pod's termination message.

Guarantee: nothing that looks like an OpenAI key is written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from worker.model.hidden import redacted
from worker.model.values import JSON


def write(path: Path | None, summary: JSON) -> None:
    """Write the summary as one line of JSON. None: nobody asked for it."""
    if path is None:
        return
    try:
        path.write_text(redacted(json.dumps(summary)) + "\n")
    except OSError as error:
        # The run is over, and its log says the same: its exit code stays as it is.
        print(f"error: --summary-file was not written: {type(error).__name__}, errno {error.errno}", file=sys.stderr)
