"""Tests of `saga check`."""
