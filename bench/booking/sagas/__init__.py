"""The one saga of this project."""
