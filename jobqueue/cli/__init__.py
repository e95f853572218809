"""The command line: ``jobqueue run | stats | jobs | show | requeue | delete | demo``.

Needs the extra ``cli`` (click and rich), which nothing else imports. Every command takes ``--json``, ``--url`` and
``--namespace``.

Exit codes: 0 done; 1 a job was not found, or the demo's numbers are wrong; 2 the command line or a declaration is wrong;
3 the storage could not be reached, or refused; 130 interrupted.
"""
