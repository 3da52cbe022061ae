"""The ledger: its objects, their transitions, and their store. It asks neither Secrets nor OpenAI."""
