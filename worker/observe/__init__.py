"""What a target looks like now: its Secret, its account at OpenAI, its consumers. Nothing is decided or written."""
