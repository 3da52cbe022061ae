"""The OpenAI key rotator: the product, and nothing that only tests or demos need."""
