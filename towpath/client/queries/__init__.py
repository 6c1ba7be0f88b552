"""What a client asks the view of instances, and how it says that the view cannot be read."""
