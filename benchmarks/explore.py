"""How many states a second the exploration visits with all checks: at least 2,000 are wanted.

python benchmarks/explore.py
"""

from __future__ import annotations

from jobqueue.testing.explore import SCENARIOS, explore

WANTED = 2_000


def main() -> None:
    """Explore each scenario with one fault, 200,000 states at most."""
    for name in SCENARIOS:
        [found] = explore([name], most=200_000)
        speed = found.totals.states / found.totals.seconds
        print(f"{name:<8} {found.totals.states:>9,} states {speed:>9,.0f} a second  {found.verdict}")
        assert speed >= WANTED, f"{name}: {speed:,.0f} states a second, {WANTED:,} are wanted"


if __name__ == "__main__":
    main()
