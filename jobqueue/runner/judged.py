"""What becomes of a job that has been run."""

from __future__ import annotations

from jobqueue.judge import Verdict, after_run, death, unjudged
from jobqueue.runner.task import Task

__all__ = ["judge"]


def judge(task: Task, now: int) -> None:
    """Write the verdict into a task that ended with something else than success."""
    assert task.outcome is not None
    if task.unfit:
        task.verdict = Verdict("bury", {"error": task.text, "recoveries": 0}, death(task.stored, now))
    else:
        assert task.kind is not None
        try:
            task.verdict = after_run(task.stored, task.outcome, task.text, task.kind.retry, now)
        except BaseException as error:  # noqa: BLE001 - foreign code has its say here, and must not end the runner
            task.verdict = unjudged(task.stored, error, task.text, now)
        task.text = str(task.verdict.changes.get("error", task.text))
    # An error holds the frames of the job, and these may hold the task: a circle that only the collector would end.
    task.outcome = None
