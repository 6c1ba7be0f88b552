"""The verbs of `towpath saga` that define, record and plan."""
