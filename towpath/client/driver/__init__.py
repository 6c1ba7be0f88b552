"""Finds psycopg's connection beneath what an application holds: a pool, SQLAlchemy's session, Django's connection."""
