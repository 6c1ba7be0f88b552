"""The versions of a view beside each other: built, compared, promoted, rolled back, dropped.

`standing.py` says how versions stand (pure), `postgres.py` moves them, `log.py` asks the topics.
"""
