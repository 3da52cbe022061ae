"""Which targets there are: generators and ExternalSecrets, listed and resolved. It reads no target's Secret."""
