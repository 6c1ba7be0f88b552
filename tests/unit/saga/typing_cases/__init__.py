"""Files for the type checker; nothing imports them when tests run."""
