"""TLS for the control listener: the certificate and key that its clients see."""

from __future__ import annotations

import ssl

from sidecar.config.models import Control
from sidecar.errors import StartError


def server_tls(control: Control) -> ssl.SSLContext | None:
    """The TLS context; None without a certificate. Raises StartError."""
    if control.certificate is None or control.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(control.certificate, control.key, password=_no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"control.certificate: {control.certificate} and {control.key} cannot be used together: {reason}; "
            "check path and mode; the key must have no passphrase"
        ) from None
    return context


def _no_passphrase() -> str:
    raise ValueError("it has a passphrase")
