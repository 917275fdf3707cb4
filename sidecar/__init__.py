"""prosody-sidecar: access decisions and room configs for Jitsi's Prosody, also while the backend is away."""

__version__ = "0.2.0"
