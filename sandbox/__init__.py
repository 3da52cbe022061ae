"""Both APIs as deterministic state machines in one process, for demo, tests and benchmarks. Never in production."""
