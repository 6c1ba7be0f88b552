"""The quarantine: what lies in it, what belongs together, and sending it back once, in order."""
