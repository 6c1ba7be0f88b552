"""Positions that lie in another schema than `public`."""
