"""Testing sagas: conversations with virtual time, golden histories, random adversaries."""
