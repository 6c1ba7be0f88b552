"""What people decide about positions that a log does not have: seen, accepted with a record of it, or written back."""
