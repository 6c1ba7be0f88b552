"""The database connection of a unit of work."""
