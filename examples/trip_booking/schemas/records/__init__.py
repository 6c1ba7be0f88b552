"""Generated: the records of trip-booking, one module a service."""
