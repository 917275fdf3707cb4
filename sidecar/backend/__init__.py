"""Asking the meeting service: the HTTP out, and what guards it."""
