"""May this user come in, and how is this room set up?

resolver       carries out the plan for one question     single_flight  one call per key at a time
view           what is known at one instant              cache          entries by key, in memory
calls          asks the backend, keeps what it says      packed_lru     one bounded kind of entries
disk           short waits for the disk                  write_behind   the cache to disk and back
explain        the plan for one key, in words
"""
