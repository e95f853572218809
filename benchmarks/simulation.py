"""How many whole job lives a second the simulation plays, with and without its checks, on one core.

python benchmarks/simulation.py [--jobs 20000]
"""

from __future__ import annotations

import argparse
import gc
import time

from jobqueue.testing import Faults, Simulation, simulate


def lives_per_second(jobs: int, *, check: bool) -> float:
    """Play one history of plain jobs without faults; answers jobs per second of processor time."""
    simulation = Simulation(
        seed=1, jobs=jobs, runners=2, producers=2, plain=True, faults=Faults.none(), burst=1000, threads=8, check=check
    )
    gc.collect()
    started = time.process_time()
    history = simulation.run()
    took = time.process_time() - started
    assert history.ended["finished"] == jobs
    return jobs / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    jobs = parser.parse_args().jobs
    lives_per_second(500, check=True)  # imports and caches
    for check, wanted in ((False, 20_000), (True, 3_000)):
        best = max(lives_per_second(jobs, check=check) for _ in range(3))
        print(
            f"{'every step checked' if check else 'nothing checked':<20} {best:>9,.0f} job lives/s (wanted {wanted:,})"
        )
    started = time.process_time()
    report = simulate(range(60), vacuous=True)
    took = time.process_time() - started
    print(
        f"{'with faults':<20} {report.steps / took:>9,.0f} checked steps/s, {report.jobs / took:,.0f} jobs/s "
        f"(each with its failures, crashes and rescues), {report.virtual / took:,.0f} times as fast as life"
    )


if __name__ == "__main__":
    main()
