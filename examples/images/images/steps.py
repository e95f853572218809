"""The steps. Each writes its file, then enqueues the next; so a step that is run again does both again.

That is safe because every file has one name and one possible content. It is not exactly once: the next step may be
enqueued twice.
"""

from images import files, pgm
from images.work import jobs
from jobqueue import Context, RetryPolicy

WIDTHS = (320, 64)

# A file that is not there yet is worth another try, bytes that are no picture are not.
STEP = RetryPolicy(limit=4, give_up_on=(pgm.NotAPicture,))


@jobs.job(queue="high", retry=STEP)
def receive(name: str) -> None:
    """Look whether an upload is a picture, and enqueue a job for each width in one round trip."""
    pgm.decode(files.read(name))
    jobs.enqueue_many([shrink.call(name, width) for width in WIDTHS])


@jobs.job(queue="compute", retry=STEP, process=True, timeout=60)
def shrink(name: str, width: int) -> None:
    """Make one small picture, on a core of its own."""
    files.write(f"{width}-{name}", pgm.encode(pgm.shrunk(pgm.decode(files.read(name)), width)))
    publish.enqueue(name)


@jobs.job
def publish(ctx: Context, name: str) -> None:
    """Write the page of a picture when all widths are there. Each of them asks; the last one to ask finds all."""
    missing = [width for width in WIDTHS if not files.exists(f"{width}-{name}")]
    if missing:
        ctx.logger.info("%s: still missing %s", name, missing)
        return
    sources = ", ".join(f"{width}-{name} {width}w" for width in sorted(WIDTHS))
    files.write(f"{name}.html", f'<img src="{name}" srcset="{sources}">\n'.encode())
