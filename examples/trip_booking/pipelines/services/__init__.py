"""One folder a service, each with its `service`."""
