"""Which failures to connect are this machine's."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from sidecar.backend.own_failures import is_ours


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
def test_a_missing_descriptor_buffer_or_port_is_ours(number: int) -> None:
    assert is_ours(OSError(number, os.strerror(number)), lookup=False)


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ECONNRESET])
def test_a_refused_connection_is_the_backends(number: int) -> None:
    assert not is_ours(OSError(number, os.strerror(number)), lookup=False)


def test_a_failed_lookup_is_ours_only_while_there_is_no_descriptor() -> None:
    failed = OSError(-3, "Temporary failure in name resolution")
    assert not is_ours(failed, lookup=True)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        found = is_ours(failed, lookup=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found
