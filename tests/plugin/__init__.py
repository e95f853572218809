"""The pytest plugin, each test in a run of pytest of its own."""
