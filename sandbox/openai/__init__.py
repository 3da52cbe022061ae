"""OpenAI's Admin API as a state machine. It answers 501 to an unsupported request."""
