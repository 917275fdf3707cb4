"""The Debian packages, made once for all tests of this folder."""

from pathlib import Path

import pytest

from tests.booted.build import build
from tests.booted.machine import BOOKWORM, DEBIANS, Debian


@pytest.fixture(scope="session")
def packages() -> dict[Debian, Path]:
    return {debian: build(debian) for debian in DEBIANS}


@pytest.fixture(scope="session")
def package(packages: dict[Debian, Path]) -> Path:
    return packages[BOOKWORM]


@pytest.fixture(scope="module", params=DEBIANS, ids=str)
def debian(request: pytest.FixtureRequest) -> Debian:
    wanted: Debian = request.param
    return wanted
