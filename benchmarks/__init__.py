"""Measurements: `python -m benchmarks`, `python -m benchmarks.soak`, and of the proof `explore` and `simulation`."""
