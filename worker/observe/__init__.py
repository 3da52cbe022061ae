"""What a target looks like now: its Secret, its account at OpenAI, its consumers. It decides and writes nothing."""
