"""prosody-sidecar: access decisions and room configs for Jitsi's Prosody, also while the backend is down."""

__version__ = "0.2.0"
