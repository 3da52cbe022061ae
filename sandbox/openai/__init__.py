"""OpenAI's Admin API as a state machine. What it does not do answers 501."""
