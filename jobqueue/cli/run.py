"""``run``: a runner in this process, or a supervisor of several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobqueue.cli.common import app_dir_option, json_option, url_options
from jobqueue.cli.init import stay_as_init

if TYPE_CHECKING:
    from jobqueue.queue import JobQueue
    from jobqueue.runner.lifeline import Lifeline

__all__ = ["parse_queues", "run"]

LEVELS = ("debug", "info", "warning", "error", "critical")


def parse_queues(text: str) -> Mapping[str, int] | list[str]:
    """Queue → weight of ``high=2,low=1``, or the names of ``high,low``, which leaves the weights to the runner.

    Raises:
        BadParameter: It is neither.
    """
    if "://" in text:  # which is not repeated: it may hold a password
        raise click.BadParameter("a URL is no name of a queue; write high=2,low=1")
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


def format_queues(queues: Mapping[str, int] | list[str]) -> str:
    """What `parse_queues` reads."""
    return (
        ",".join(f"{name}={weight}" for name, weight in queues.items())
        if isinstance(queues, Mapping)
        else ",".join(queues)
    )


def _queues(_: click.Context, __: click.Parameter, value: str | None) -> Mapping[str, int] | list[str] | None:
    return None if value is None else parse_queues(value)


@click.command()
@click.argument("target")
@click.option("--threads", type=click.IntRange(1, 10_000), default=8, show_default=True, help="Functions at a time.")
@click.option(
    "--coroutines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Coroutines at a time."
)
@click.option(
    "--job-processes",
    type=click.IntRange(1, 10_000),
    help="Functions declared with process=True at a time, per runner; by default one for each core.",
)
@click.option(
    "--jobs-per-process",
    type=click.IntRange(1, 10_000),
    default=1_000,
    show_default=True,
    help="After so many jobs the process that runs them is replaced.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="Runner processes; with more than one this one looks after them.",
)
@click.option(
    "--queues",
    callback=_queues,
    metavar="NAME=WEIGHT,…",
    help="The queues to serve, as in high=2,low=1; by default all that are declared or stored.",
)
@click.option("--burst", is_flag=True, help="End when nothing is ready or due and its own jobs have ended.")
@click.option("--strict", is_flag=True, help="Serve a queue only while none of a larger weight has work.")
@click.option(
    "--lease", type=float, default=30, show_default=True, metavar="SECONDS", help="How long a claim is good unbeaten."
)
@click.option(
    "--grace", type=float, default=30, show_default=True, metavar="SECONDS", help="How long jobs may end after a stop."
)
@app_dir_option("Where modules are looked for first; by default the current directory.")
@click.option("--import", "modules", multiple=True, metavar="MODULE", help="Import this module too; repeatable.")
@click.option("--uvloop", is_flag=True, help="Run coroutines on uvloop (jobqueue-py[fast]).")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="What to log, unless the application sets up logging.",
)
@url_options("Where jobs are stored, instead of what TARGET says.")
@click.option("--namespace", help="The namespace, instead of what TARGET says.")
@json_option("Log JSON lines instead of text.")
@click.option("--lifeline", type=int, hidden=True, help="What a supervisor hands its runners.")
def run(
    target: str,
    threads: int,
    coroutines: int,
    job_processes: int | None,
    jobs_per_process: int,
    processes: int,
    queues: Mapping[str, int] | list[str] | None,
    burst: bool,
    strict: bool,
    lease: float,
    grace: float,
    app_dir: Path,
    modules: tuple[str, ...],
    uvloop: bool,
    log_level: str,
    url: str | None,
    namespace: str | None,
    json_output: bool,
    lifeline: int | None,
) -> int:
    """Claim jobs and run them until SIGTERM, Ctrl-C or SIGHUP.

    TARGET names a JobQueue as module:attribute, for example shop.work:jobs. The first signal lets running jobs end
    within the grace time and hands the rest back; a second leaves at once, which is as safe as a crash. The same signal
    within a second counts as one. Logs go to standard error, unless the application sets up logging. With several
    processes, one that dies is started again and its jobs run again at once; SIGHUP replaces them one after the other,
    unless it comes from a terminal. With --burst it also ends when nothing is ready or due; what is due later, also a
    retry, does not count.
    """
    if (code := stay_as_init()) is not None:
        return code
    from jobqueue.cli.target import import_module, load_target, put_first_on_path
    from jobqueue.runner.runner import Runner

    line: Lifeline | None = None
    if lifeline is not None:
        from jobqueue.runner.lifeline import Lifeline

        line = Lifeline(lifeline)  # before anything of the application is imported, which may start programs
        url = line.url()
    put_first_on_path(app_dir)
    jobs = load_target(target)
    jobs.relocate(url=url, namespace=namespace)
    try:
        runner = Runner(
            jobs, threads=threads, coroutines=coroutines, queues=queues, strict=strict, lease=lease, grace=grace,
            uvloop=uvloop, named=None if line is None else line.say, job_processes=job_processes,
            jobs_per_process=jobs_per_process,
        )  # fmt: skip
    except ValueError as error:  # a duration that is negative or not finite
        raise click.UsageError(str(error)) from error
    if processes > 1 and line is None:
        # The runner was made for its checks alone: what it would refuse is said once, here.
        from jobqueue.cli.start import command

        # The URL may hold a password, so it is no argument: the supervisor says it to each runner.
        words = [
            *command("run", target, "--threads", str(threads), "--coroutines", str(coroutines)),
            *(() if job_processes is None else ("--job-processes", str(job_processes))),
            *("--jobs-per-process", str(jobs_per_process)),
            *(() if queues is None else ("--queues", format_queues(queues))),
            *("--lease", str(lease), "--grace", str(grace), "--app-dir", str(app_dir), "--log-level", log_level),
            *(word for module in modules for word in ("--import", module)),
            *(() if namespace is None else ("--namespace", namespace)),
            *(("--burst",) if burst else ()),
            *(("--strict",) if strict else ()),
            *(("--uvloop",) if uvloop else ()),
            *(("--json",) if json_output else ()),
        ]
        _set_up_logging(log_level, json_output=json_output)
        return _supervise(jobs, words, processes, grace, burst=burst, url=url)
    if line is not None:
        line.watch(runner.stop)
    for module in jobs.imports:
        import_module(module, f"imports= of {target}")
    for module in modules:
        import_module(module, "--import")
    _set_up_logging(log_level, json_output=json_output)
    with jobs:
        runner.run(until_empty=burst)
    return 0


def _set_up_logging(level: str, *, json_output: bool) -> None:
    """Set up logging where the application has not: now, when its modules are imported."""
    from jobqueue.cli.logs import set_up_logging

    if set_up_logging(level, json_output=json_output):
        return
    given = click.get_current_context().get_parameter_source
    typed = [
        option
        for name, option in (("log_level", "--log-level"), ("json_output", "--json"))
        if given(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if typed and given("lifeline") is not click.core.ParameterSource.COMMANDLINE:
        click.echo(f"jobqueue: {' and '.join(typed)}: no effect, the application sets up logging itself", err=True)


def _supervise(
    jobs: JobQueue, command: list[str], processes: int, grace: float, *, burst: bool, url: str | None
) -> int:
    from jobqueue.backend import MemoryBackend
    from jobqueue.cli.start import environment
    from jobqueue.runner.supervisor import Supervisor

    with jobs:
        if isinstance(jobs.access.opened().backend, MemoryBackend):
            raise click.UsageError(
                "memory:// lives inside of one process; --processes needs a storage that they can share"
            )
        return Supervisor(jobs, command, processes, grace, burst=burst, url=url, environment=environment()).run()
