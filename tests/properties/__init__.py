"""Promises that hold for any run."""
