"""Follows the dead-letter topics of commands."""
