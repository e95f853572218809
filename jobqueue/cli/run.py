"""``run``: a runner in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobqueue.cli.common import json_option

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parse_queues", "run"]

LEVELS = ("debug", "info", "warning", "error", "critical")


def parse_queues(text: str) -> Mapping[str, int] | list[str]:
    """Queue → weight of ``high=2,low=1``, or the names of ``high,low``, which leaves the weights to the runner.

    Raises:
        BadParameter: It is neither.
    """
    weights: dict[str, int] = {}
    plain: list[str] = []
    for part in text.split(","):
        name, equals, weight = (word.strip() for word in part.partition("="))
        if not name or name in weights or name in plain:
            problem = f"{name!r} is named twice" if name else "a name is missing"
            raise click.BadParameter(f"{problem} in {text!r}; write high=2,low=1")
        if not equals:
            plain.append(name)
        elif weight.isascii() and weight.isdigit():
            weights[name] = int(weight)
        else:
            raise click.BadParameter(f"the weight of {name} is a whole number, not {weight!r}")
    if weights and plain:
        raise click.BadParameter(f"{plain[0]} has no weight in {text!r}; give one to all queues or to none")
    return weights or plain


def _queues(_: click.Context, __: click.Parameter, value: str | None) -> Mapping[str, int] | list[str] | None:
    return None if value is None else parse_queues(value)


@click.command()
@click.argument("target")
@click.option("--threads", type=click.IntRange(1, 10_000), default=8, show_default=True, help="Functions at a time.")
@click.option(
    "--coroutines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Coroutines at a time."
)
@click.option(
    "--queues",
    callback=_queues,
    metavar="NAME=WEIGHT,…",
    help="The queues to serve, as in high=2,low=1; by default all that are declared or stored.",
)
@click.option(
    "--lease", type=float, default=30, show_default=True, metavar="SECONDS", help="How long a claim is good unbeaten."
)
@click.option(
    "--grace", type=float, default=30, show_default=True, metavar="SECONDS", help="How long jobs may end after a stop."
)
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Where modules are looked for first; by default the current directory.",
)
@click.option("--import", "modules", multiple=True, metavar="MODULE", help="Import this module too; repeatable.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="What to log.",
)
@click.option("--url", help="Where jobs are stored, instead of what TARGET says.")
@click.option("--namespace", help="The namespace, instead of what TARGET says.")
@json_option("Log JSON lines instead of text.")
def run(
    target: str,
    threads: int,
    coroutines: int,
    queues: Mapping[str, int] | list[str] | None,
    lease: float,
    grace: float,
    app_dir: Path,
    modules: tuple[str, ...],
    log_level: str,
    url: str | None,
    namespace: str | None,
    json_output: bool,
) -> None:
    """Claim jobs and run them until SIGTERM or Ctrl-C.

    TARGET names a JobQueue as module:attribute, for example shop.queue:jobs. The first signal lets running jobs end
    within the grace time and hands the rest back; the second leaves at once, which is as safe as a crash. Logs go to
    standard error.
    """
    from jobqueue.cli.logs import set_up_logging
    from jobqueue.cli.target import import_module, load_target, put_first_on_path
    from jobqueue.runner.runner import Runner

    set_up_logging(log_level, json_output=json_output)
    put_first_on_path(app_dir)
    jobs = load_target(target)
    for module in modules:
        import_module(module)
    jobs.relocate(url=url, namespace=namespace)
    try:
        runner = Runner(jobs, threads=threads, coroutines=coroutines, queues=queues, lease=lease, grace=grace)
    except ValueError as error:  # a duration that is negative or not finite
        raise click.UsageError(str(error)) from error
    with jobs:
        runner.run()
