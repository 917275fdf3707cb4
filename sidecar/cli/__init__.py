"""The command `prosody-sidecar`."""
