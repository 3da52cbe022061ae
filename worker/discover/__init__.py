"""Which targets there are: generators and ExternalSecrets, listed and resolved. No target's Secret is read."""
