"""Tests of what begins a project."""
