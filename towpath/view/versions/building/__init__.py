"""Building a version: from its topics, or from the rows of the version before."""
