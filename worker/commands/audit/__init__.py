"""`audit`: every account and key at OpenAI next to the ledger. It changes nothing anywhere."""
