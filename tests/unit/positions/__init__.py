"""Decisions about positions that a log does not have."""
