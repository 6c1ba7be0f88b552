"""How many sagas there are and how they stand, for metrics."""
