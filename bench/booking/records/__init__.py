"""Generated: the records of booking, one module a service."""
