"""Reading one partition, outside any group."""
