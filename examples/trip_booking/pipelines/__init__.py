"""What moves: services and views."""
