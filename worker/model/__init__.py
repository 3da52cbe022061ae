"""The nouns: immutable values and the rules of their names. No I/O. It imports no other package of the worker."""
