"""The cases of `jobqueue.testing.check_storage`, by what they are about."""
