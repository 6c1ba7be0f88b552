"""Unit tests of the verbs of `replay`."""
