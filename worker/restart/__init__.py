"""Restart the workloads that users name, once for each publication. No key is made or deleted here."""
