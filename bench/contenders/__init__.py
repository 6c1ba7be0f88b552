"""What is measured against each other: each a process that copies topic `in` to topic `out` until SIGTERM.

Each takes one JSON argument: servers, in, out, state, tag, and what else it is to do.
"""
