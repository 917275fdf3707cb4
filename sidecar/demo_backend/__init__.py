"""A small meeting service for demonstrations: the backend of `make demo`, `make run` and the README.

    POST /webhooks/jitsi/<endpoint> -> count -> secret? -> body? -> fault? -> room rules -> answer
    POST /demo/...                  -> changes a room or a fault while it runs
    GET  /                          -> describes how to use it

It has the same HTTP interface as a real meeting service and keeps everything in memory. The name of a room decides
how it behaves, so that the first `curl` shows something: `cancelled-*`, `private-*`, `no-chat`; all others are open.
A setting made with `/demo/rooms/<room>` has priority over the name.
"""
