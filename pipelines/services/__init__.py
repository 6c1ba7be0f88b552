"""The four services of CraftyGoods, each with a database that nobody else touches.

In each, `rules.py` decides (pure), `postgres.py` keeps, `service.py` answers commands and opens the service's doors.
"""
