"""How Faust consumes exactly once.

`agent.py` is what a user imports. A record travels: `kafka.py` or `memory/` (the port of `broker.py`), `loop.py`
(units of work), `transport.py` (Faust), an agent, `unit.py` (what it sends and keeps), and `transaction.py` or
`postgres.py` (what makes it true).
"""
