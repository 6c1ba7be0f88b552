"""Sagas of every kind that people write, each as short as it can be said; run and proved by `tests/unit/examples`."""
