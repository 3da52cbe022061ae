"""What to do, decided from plain values: rotate or keep, delete or hold. Pure: no I/O, no clock."""
