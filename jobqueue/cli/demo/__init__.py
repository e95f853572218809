"""``demo``: real files, runner processes, failures and a SIGKILL; the numbers are checked against a plain loop."""
