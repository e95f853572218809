"""``python -m benchmarks.soak [--minutes 10]``: half of what the runners can do, with a fault every few seconds.

Two supervised runners drain what a producer sends, while runners are killed and stopped, connections cut, scripts flushed,
calls stalled and the server is killed and comes back from its append-only file. Afterwards every job that was accepted must
stand in a ledger that only jobs write, the storage must be empty, and the memory of runners and server must have been flat
after the first minute. The exit code says whether all of it held. ``--svg`` draws the curves.
"""
