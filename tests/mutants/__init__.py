"""Known-wrong variants of the library, each of which the tests have to catch: ``python -m tests.mutants``."""
