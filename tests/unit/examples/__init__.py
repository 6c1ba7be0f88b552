"""Tests of the sagas in `examples/sagas`."""
