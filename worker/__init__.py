"""The rotator: one run from discover to report, the two systems that it talks to, and the ledger between runs."""
