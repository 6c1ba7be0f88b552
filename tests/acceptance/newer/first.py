"""Version 1: the reference project's own."""

from sagas.place_order import saga

__all__ = ["saga"]
