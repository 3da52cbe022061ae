"""The nouns: immutable values and the rules of their names. No I/O, and nothing of the rest is imported."""
