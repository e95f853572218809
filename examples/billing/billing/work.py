"""The queue of this application."""

from jobqueue import JobQueue

jobs = JobQueue("redis://localhost:6379/0", namespace="billing", imports=["billing.run"])
