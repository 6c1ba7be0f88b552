"""The saga room."""
