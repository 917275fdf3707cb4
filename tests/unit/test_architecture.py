"""Who may import whom, and which library has its only home where. A new module is registered here, in LAYERS.

core <- vocabulary <- adapters            (adapters never import each other)
                   <- engines <- edges    (engines get adapters as arguments, edges never import each other)
                                 wiring   (imports everything)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sidecar

ROOT = Path(sidecar.__file__).parent

LAYERS: dict[str, tuple[str, ...]] = {
    "core": ("core",),
    "vocabulary": ("advice", "clock", "config", "errors", "rules", "settings", "signals", "wire", "wording"),
    "adapters": ("backend", "client", "logs", "metrics", "secret", "store", "systemd"),
    "engines": (
        "cache",
        "explain",
        "flights",
        "gateway",
        "health",
        "lane",
        "outbox",
        "pulse",
        "recent",
        "shelf",
        "slots",
        "writer",
    ),
    "edges": ("admin", "page", "web"),
    "wiring": (
        *(
            "__main__",
            "check",
            "cli",
            "console",
            "daemon",
            "demo_backend",
            "listening",
            "online",
            "status",
            "target",
            "watch",
        ),
    ),
}
"""A name is a module of sidecar/ or a package in it; a package is one thing, its modules may import each other."""

MAY_IMPORT: dict[str, frozenset[str]] = {
    "core": frozenset({"core"}),
    "vocabulary": frozenset({"core", "vocabulary"}),
    "adapters": frozenset({"core", "vocabulary"}),
    "engines": frozenset({"core", "vocabulary", "engines"}),
    "edges": frozenset({"core", "vocabulary", "engines"}),
    "wiring": frozenset(LAYERS),
}

HOMES: dict[str, frozenset[str]] = {
    "aiohttp": frozenset({"admin", "backend", "cli", "daemon", "demo_backend", "listening", "page", "web"}),
    "cachetools": frozenset({"cache", "shelf"}),
    "click": frozenset({"cli"}),
    "prometheus_client": frozenset({"metrics"}),
    "pydantic": frozenset({"config", "settings", "wire"}),
    "random": frozenset({"daemon"}),
    "rich": frozenset({"cli", "console", "status", "watch"}),
    "secrets": frozenset({"daemon"}),
    "sqlite3": frozenset({"store"}),
    "structlog": frozenset({"logs"}),
    "time": frozenset({"clock"}),
    "yaml": frozenset({"config"}),
}
"""Libraries that are reached through one door. All that is not of the standard library must be here."""

PURE = frozenset(
    {"__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq", "itertools"}
    | {"json", "math", "operator", "re", "string", "typing", "unicodedata"}
)
"""What core may use of the standard library: nothing in it knows the time, draws lots, logs or waits."""

IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__", "breakpoint"})

_LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}


def violations(module: str, source: str) -> list[str]:
    """What is wrong with this source as the module of that dotted name below `sidecar`, one line each."""
    part = module.partition(".")[0]
    if part not in _LAYER_OF:
        return [f"sidecar.{module}: unknown; register {part!r} in LAYERS of {Path(__file__).name}"]
    tree = ast.parse(source)
    found = [problem for name in _imports(module, tree) if (problem := _import_problem(part, name))]
    if part == "core":
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


def _import_problem(part: str, name: str) -> str | None:
    top, _, rest = name.partition(".")
    if top == "sidecar":
        target = rest.partition(".")[0]
        if not target or target == part:
            return None
        if target not in _LAYER_OF:
            return f"imports sidecar.{target}, which is unknown; register {target!r} in LAYERS"
        mine, theirs = _LAYER_OF[part], _LAYER_OF[target]
        return None if theirs in MAY_IMPORT[mine] else f"is one of the {mine} and imports {target}, of the {theirs}"
    if top in HOMES:
        homes = ", ".join(sorted(HOMES[top]))
        return None if part in HOMES[top] else f"imports {top}, whose home is {homes}"
    if top not in sys.stdlib_module_names:
        return f"imports {top}, which has no home; register it in HOMES"
    if part == "core" and top not in PURE:
        return f"is pure and imports {top}"
    return None


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
def test_every_module_imports_only_what_its_layer_may(module: str) -> None:
    assert violations(module, sources()[module]) == []


def test_the_package_itself_imports_nothing() -> None:
    assert not list(_imports("__init__", ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))))


def test_every_module_is_registered_once() -> None:
    assert len(_LAYER_OF) == sum(map(len, LAYERS.values()))


def test_every_home_is_a_registered_module() -> None:
    assert {home for homes in HOMES.values() for home in homes} <= set(_LAYER_OF)


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("core.policy", "import time", "sidecar.core.policy: imports time, whose home is clock"),
        ("core.policy", "import random", "sidecar.core.policy: imports random, whose home is daemon"),
        ("core.policy", "import logging", "sidecar.core.policy: is pure and imports logging"),
        ("core.policy", "from asyncio import sleep", "sidecar.core.policy: is pure and imports asyncio"),
        ("core.policy", "import datetime", "sidecar.core.policy: is pure and imports datetime"),
        ("core.policy", "from pathlib import Path", "sidecar.core.policy: is pure and imports pathlib"),
        ("core.policy", "import os.path", "sidecar.core.policy: is pure and imports os"),
        ("core.policy", "async def f(): ...", "sidecar.core.policy: is pure and waits, in line 1"),
        ("core.policy", "text = open('x')", "sidecar.core.policy: is pure and calls open(), in line 1"),
        (
            "core.policy",
            "from sidecar.cache import Cache",
            "sidecar.core.policy: is one of the core and imports cache, of the engines",
        ),
        (
            "core.policy",
            "from ..signals import Fact",
            "sidecar.core.policy: is one of the core and imports signals, of the vocabulary",
        ),
        (
            "config",
            "from sidecar.store import Store",
            "sidecar.config: is one of the vocabulary and imports store, of the adapters",
        ),
        (
            "backend",
            "from sidecar.store.decisions import Store",
            "sidecar.backend: is one of the adapters and imports store, of the adapters",
        ),
        (
            "logs",
            "from . import metrics",
            "sidecar.logs: is one of the adapters and imports metrics, of the adapters",
        ),
        (
            "store.decisions",
            "from sidecar.cache import Cache",
            "sidecar.store.decisions: is one of the adapters and imports cache, of the engines",
        ),
        (
            "gateway",
            "from sidecar import backend",
            "sidecar.gateway: is one of the engines and imports backend, of the adapters",
        ),
        (
            "gateway",
            "def f():\n    import sidecar.web",
            "sidecar.gateway: is one of the engines and imports web, of the edges",
        ),
        ("web", "from sidecar.admin import x", "sidecar.web: is one of the edges and imports admin, of the edges"),
        ("web", "import sidecar.store", "sidecar.web: is one of the edges and imports store, of the adapters"),
        ("web", "import yaml", "sidecar.web: imports yaml, whose home is config"),
        ("gateway", "from aiohttp import web", "sidecar.gateway: imports aiohttp, whose home is admin, backend, cli, "),
        ("cache", "import sqlite3", "sidecar.cache: imports sqlite3, whose home is store"),
        ("gateway", "from cachetools import TTLCache", "sidecar.gateway: imports cachetools, whose home is cache"),
        ("backend", "import structlog", "sidecar.backend: imports structlog, whose home is logs"),
        ("web", "import requests", "sidecar.web: imports requests, which has no home; register it in HOMES"),
        ("web", "import sidecar.helpers", "sidecar.web: imports sidecar.helpers, which is unknown; register 'helpers'"),
        ("helpers", "", "sidecar.helpers: unknown; register 'helpers' in LAYERS of test_architecture.py"),
    ],
)
def test_a_crossed_layer_is_noticed(module: str, source: str, problem: str) -> None:
    found = violations(module, source)
    assert len(found) == 1
    assert found[0].startswith(problem)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.policy", "from sidecar.core.model import Key\nfrom . import breaker\nfrom .model import Entry"),
        ("store.decisions", "import sqlite3\nfrom sidecar.store.rows import Row\nfrom . import rows\nimport sidecar"),
        ("gateway", "import asyncio\nfrom sidecar.cache import Cache\nfrom sidecar.signals import Emit"),
        ("web", "from aiohttp import web\nfrom sidecar import __version__\nfrom sidecar.gateway import Gateway"),
        ("daemon", "import random, secrets, aiohttp\nfrom sidecar import backend, web, cache"),
    ],
)
def test_what_the_layers_allow_is_not_complained_about(module: str, source: str) -> None:
    assert violations(module, source) == []
