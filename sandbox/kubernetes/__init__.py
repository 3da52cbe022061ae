"""A Kubernetes API server's behaviour as a state machine. What it does not do answers 501."""
