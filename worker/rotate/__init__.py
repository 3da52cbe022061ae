"""Give targets a new key: intent, mint, verify, publish, record. Nothing is deleted here."""
