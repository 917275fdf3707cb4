"""Failures that an operator meets, each really produced: what says it first, after how long, and that the cure works.

table        what a row is, how it is run, and the table in docs/failures.md
common       rows that can be produced anywhere: the meeting service, secrets, reloads, events
here         a sidecar on this machine, and rows of starts and of the disk; tests/system/test_failures.py runs them
booted       the package on a booted Debian; rows of systemd, of the disk and of dpkg are in booted_rows
"""
