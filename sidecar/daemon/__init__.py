"""Builds all parts, runs them, and talks to systemd."""
