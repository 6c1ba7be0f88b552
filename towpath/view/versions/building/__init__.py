"""Building a version: from its topics, from the outboxes where these have expired, or from the version before."""
