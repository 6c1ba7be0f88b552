"""Generated: the records of craftygoods, one module a service."""
