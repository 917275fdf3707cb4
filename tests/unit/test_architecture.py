"""Which folder may import which, and where each library has its only home.

core <- vocabulary <- adapters                (adapters never import each other)
                   <- engines <- edges        (engines get adapters as arguments, edges get engines)
                   <- config                  (only the daemon and the commands see it)
                                  daemon      (wires everything)

A new folder is registered in FOLDERS, a new library in HOMES.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sidecar

ROOT = Path(sidecar.__file__).parent

VOCABULARY = frozenset({"core", "facts", "clock", "errors"})
"""What every part may speak of."""

FOLDERS: dict[str, frozenset[str]] = {
    "core": frozenset(),
    "facts": frozenset({"core"}),
    "clock": frozenset(),
    "errors": frozenset(),
    # adapters
    "backend": VOCABULARY,
    "store": VOCABULARY,
    "shared": VOCABULARY,
    "telemetry": VOCABULARY,
    # engines
    "decisions": VOCABULARY,
    "events": VOCABULARY,
    "control": VOCABULARY,
    # edges
    "web": VOCABULARY | {"decisions", "control"},
    # the config file, and who reads it
    "config": VOCABULARY | {"backend"},
    "daemon": VOCABULARY
    | {"backend", "store", "shared", "telemetry", "decisions", "events", "control", "web", "config"},
    "cli": VOCABULARY | {"backend", "telemetry", "config", "daemon", "demo_backend"},
    "demo_backend": frozenset(),
    "__main__": frozenset({"cli"}),
}
"""Each folder or single file of sidecar/, and what it may import. The modules of a folder may import each other."""

HOMES: dict[str, frozenset[str]] = {
    "aiohttp": frozenset({"backend.client", "backend.pool", "backend.names", "demo_backend.server", "web"}),
    "cachetools": frozenset({"decisions.rooms_in_use", "decisions.suspicion"}),
    "click": frozenset({"cli.commands", "cli.main"}),
    "prometheus_client": frozenset({"telemetry.metrics"}),
    "pydantic": frozenset({"config.models", "config.loader"}),
    "random": frozenset({"daemon.build"}),
    "redis": frozenset({"shared"}),
    "rich": frozenset({"cli.render", "cli.live_status", "cli.output"}),
    "secrets": frozenset({"daemon.build", "cli.commands"}),
    "sqlite3": frozenset({"store"}),
    "structlog": frozenset({"telemetry.logs"}),
    "time": frozenset({"clock"}),
    "yaml": frozenset({"config.plain_yaml"}),
}
"""The only folders or modules that use a library. All that is not of the standard library must be here."""

PURE = frozenset(
    {"__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq", "hmac"}
    | {"ipaddress", "itertools", "json", "math", "operator", "re", "statistics", "string", "typing", "unicodedata"}
)
"""What core may use of the standard library: nothing in it knows the time, draws lots, logs or waits."""

IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__", "breakpoint"})


def violations(module: str, source: str) -> list[str]:
    """What is wrong with this source as the module of that dotted name below `sidecar`, one line each."""
    folder = module.partition(".")[0]
    if folder not in FOLDERS:
        return [f"sidecar.{module}: unknown; register {folder!r} in FOLDERS of {Path(__file__).name}"]
    tree = ast.parse(source)
    found = [problem for name in _imports(module, tree) if (problem := _import_problem(module, name))]
    if folder == "core":
        found += _impurities(tree)
    return [f"sidecar.{module}: {problem}" for problem in found]


def _imports(module: str, tree: ast.Module) -> Iterator[str]:
    """The dotted names of everything imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ["sidecar", *module.split(".")][: -node.level]
                base = ".".join([*above, base] if base else above)
            if base == "sidecar":  # `from sidecar import web` is an import of web
                yield from (f"sidecar.{alias.name}" for alias in node.names if not alias.name.startswith("__"))
            else:
                yield base


def _import_problem(module: str, name: str) -> str | None:
    folder = module.partition(".")[0]
    top, _, rest = name.partition(".")
    if top == "sidecar":
        target = rest.partition(".")[0]
        if not target or target == folder:
            return None
        if target not in FOLDERS:
            return f"imports sidecar.{target}, which is unknown; register {target!r} in FOLDERS"
        return None if target in FOLDERS[folder] else f"{folder} may not import {target}"
    if top in HOMES:
        return None if HOMES[top] & {folder, module} else f"imports {top}, whose home is {_listed(HOMES[top])}"
    if top not in sys.stdlib_module_names:
        return f"imports {top}, which has no home; register it in HOMES"
    if folder == "core" and top not in PURE:
        return f"is pure and imports {top}"
    return None


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _impurities(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"is pure and waits, in line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield f"is pure and calls {node.func.id}(), in line {node.lineno}"


def sources() -> dict[str, str]:
    """Every module below sidecar/, by its dotted name; the package itself holds no more than its version."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            found[".".join(parts)] = path.read_text(encoding="utf-8")
    return found


@pytest.mark.parametrize("module", sources())
def test_every_module_imports_only_what_its_folder_may(module: str) -> None:
    assert violations(module, sources()[module]) == []


def test_the_package_itself_imports_nothing() -> None:
    assert not list(_imports("__init__", ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", sorted(FOLDERS.keys() | {home for homes in HOMES.values() for home in homes}))
def test_every_registered_name_exists(name: str) -> None:
    place = ROOT.joinpath(*name.split("."))
    assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def test_every_folder_may_import_only_registered_ones() -> None:
    assert frozenset().union(*FOLDERS.values()) <= FOLDERS.keys()


def test_every_folder_is_a_package_with_modules() -> None:
    folders = [each for each in ROOT.rglob("*") if each.is_dir() and each.name != "__pycache__"]
    assert [each for each in folders if not (each / "__init__.py").is_file() or len(list(each.glob("*.py"))) < 2] == []


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("core.policy", "import time", "sidecar.core.policy: imports time, whose home is clock"),
        ("core.policy", "import random", "sidecar.core.policy: imports random, whose home is daemon.build"),
        ("core.policy", "import logging", "sidecar.core.policy: is pure and imports logging"),
        ("core.policy", "from asyncio import sleep", "sidecar.core.policy: is pure and imports asyncio"),
        ("core.policy", "import datetime", "sidecar.core.policy: is pure and imports datetime"),
        ("core.policy", "from pathlib import Path", "sidecar.core.policy: is pure and imports pathlib"),
        ("core.policy", "import os.path", "sidecar.core.policy: is pure and imports os"),
        ("core.policy", "async def f(): ...", "sidecar.core.policy: is pure and waits, in line 1"),
        ("core.policy", "text = open('x')", "sidecar.core.policy: is pure and calls open(), in line 1"),
        (
            "core.policy",
            "from sidecar.decisions.cache import Cache",
            "sidecar.core.policy: core may not import decisions",
        ),
        ("core.policy", "from ..facts import Fact", "sidecar.core.policy: core may not import facts"),
        ("config.loader", "from sidecar.store import Store", "sidecar.config.loader: config may not import store"),
        (
            "backend.client",
            "from sidecar.store.file import File",
            "sidecar.backend.client: backend may not import store",
        ),
        ("backend.guard", "from ..telemetry import logs", "sidecar.backend.guard: backend may not import telemetry"),
        ("store.events", "from sidecar.events import outbox", "sidecar.store.events: store may not import events"),
        (
            "decisions.resolver",
            "from sidecar import backend",
            "sidecar.decisions.resolver: decisions may not import backend",
        ),
        ("events.outbox", "def f():\n    import sidecar.web", "sidecar.events.outbox: events may not import web"),
        ("web.admin", "from sidecar.config.models import Admin", "sidecar.web.admin: web may not import config"),
        ("web.admin", "import sidecar.store", "sidecar.web.admin: web may not import store"),
        ("web.admin", "import yaml", "sidecar.web.admin: imports yaml, whose home is config.plain_yaml"),
        ("config.models", "import yaml", "sidecar.config.models: imports yaml, whose home is config.plain_yaml"),
        (
            "decisions.resolver",
            "from aiohttp import web",
            "sidecar.decisions.resolver: imports aiohttp, whose home is backend.client",
        ),
        ("decisions.cache", "import sqlite3", "sidecar.decisions.cache: imports sqlite3, whose home is store"),
        (
            "backend.client",
            "import structlog",
            "sidecar.backend.client: imports structlog, whose home is telemetry.logs",
        ),
        (
            "web.admin",
            "import requests",
            "sidecar.web.admin: imports requests, which has no home; register it in HOMES",
        ),
        (
            "web.admin",
            "import sidecar.helpers",
            "sidecar.web.admin: imports sidecar.helpers, which is unknown; register 'helpers' in FOLDERS",
        ),
        ("helpers", "", "sidecar.helpers: unknown; register 'helpers' in FOLDERS of test_architecture.py"),
    ],
)
def test_a_forbidden_import_is_noticed(module: str, source: str, problem: str) -> None:
    found = violations(module, source)
    assert len(found) == 1
    assert found[0].startswith(problem)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.policy", "from sidecar.core.model import Key\nfrom . import breaker\nfrom .model import Entry"),
        ("store.decisions", "import sqlite3\nfrom sidecar.store.rows import Row\nfrom . import rows\nimport sidecar"),
        (
            "decisions.resolver",
            "import asyncio\nfrom sidecar.decisions.cache import Cache\nfrom sidecar.facts import Emit",
        ),
        (
            "web.admin",
            "from aiohttp import web\nfrom sidecar import __version__\nfrom sidecar.decisions import explain",
        ),
        ("daemon.build", "import random, secrets\nfrom sidecar import backend, config, web"),
    ],
)
def test_what_is_allowed_is_not_complained_about(module: str, source: str) -> None:
    assert violations(module, source) == []
