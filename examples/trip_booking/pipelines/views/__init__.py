"""One module a view, each with its `view`."""
