"""The runner: a pure core (`core`), what it holds (`leases`, `shares`, `task`), and its drivers (`threads`, `aio`)."""
