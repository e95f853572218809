"""Background jobs whose delivery guarantees can be checked."""
