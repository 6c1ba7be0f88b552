"""What a cluster says of its topics and groups."""
