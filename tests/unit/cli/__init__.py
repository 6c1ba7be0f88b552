"""Unit tests of the command line, one folder a group of verbs."""
