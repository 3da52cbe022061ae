"""Concurrency, deadlines, retries and clocks. It knows nothing of keys."""
