"""The names that outbox, capture and PostgreSQL share. Pure: each is a function of the project and the service."""

VIEWS_DATABASE = "views"
PUBLICATION = "towpath_outbox"
OUTBOX_TABLE = "outbox"
HEARTBEAT_TABLE = "outbox_heartbeat"


def connector_name(project: str, service: str) -> str:
    """Return the name of the connector that captures a service's outbox."""
    return f"{project}-{service}-outbox"


def slot_name(project: str, service: str) -> str:
    """Return the name of its replication slot.

    PostgreSQL allows lower-case letters, digits and underscores, at most 63 of them. Slots are global to a server,
    hence the project in the name.
    """
    return f"{project}_{service}_outbox".replace("-", "_")


def topic_prefix(project: str, service: str) -> str:
    """Return Debezium's `topic.prefix`: the name under which the connector's offsets and heartbeats are kept."""
    return f"{project}.{service}"


def heartbeat_topic(project: str, service: str) -> str:
    """Return the topic that Debezium's heartbeats go to, which is what lets an idle slot advance."""
    return f"__debezium-heartbeat.{topic_prefix(project, service)}"
