"""The image, built once from this checkout without a registry: tests/container/podman.py."""

from __future__ import annotations

import pytest

from tests.container.podman import CannotRun, Image, built


@pytest.fixture(scope="session")
def image() -> Image:
    """The image; .ci/run asks before whether this machine can run it."""
    try:
        return built()
    except CannotRun as error:
        pytest.fail(str(error))
