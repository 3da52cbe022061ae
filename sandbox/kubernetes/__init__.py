"""A Kubernetes API server's behaviour as a state machine. It answers 501 to an unsupported request."""
