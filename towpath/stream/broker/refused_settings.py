"""What a cluster refuses of a client's own settings, and which setting each is about. Pure.

The one rule: a client that asks again with the same settings is refused again, so it ends and says what to change. A
worker that took such an answer for a fault of the world would replace its member, or wait, for ever.
"""

from towpath.errors import ConfigurationError

_ACCESS = "give this client's user the right, or use another user: [kafka] in towpath.toml"

_REFUSED: dict[str, tuple[str, str]] = {
    "INVALID_SESSION_TIMEOUT": (
        "the brokers do not take stream.session_timeout_seconds",
        "set stream.session_timeout_seconds between the brokers' limits, by default 6 s and 30 min",
    ),
    "INVALID_TRANSACTION_TIMEOUT": (
        "the brokers do not take stream.transaction_timeout_seconds",
        "set stream.transaction_timeout_seconds below the brokers' limit, by default 15 min",
    ),
    "INCONSISTENT_GROUP_PROTOCOL": (
        "the group has members of another program, or of another assignor than range",
        "end those members, or give this project a name of its own: project.name",
    ),
    "UNSUPPORTED_ASSIGNOR": (
        "the brokers do not know the assignor range, which stream.group_protocol = consumer needs",
        "set stream.group_protocol to classic, or name range in the brokers' group.consumer.assignors",
    ),
    "GROUP_MAX_SIZE_REACHED": (
        "the group has as many members as the brokers take",
        "run fewer workers of it, or raise the brokers' group.max.size",
    ),
    "INVALID_GROUP_ID": ("the brokers take no group of this name", "give the project another name: project.name"),
    "GROUP_AUTHORIZATION_FAILED": ("its user may not read this group", _ACCESS),
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": ("its user may not write under this transactional id", _ACCESS),
    "CLUSTER_AUTHORIZATION_FAILED": ("its user may not write with idempotence", _ACCESS),
}


def refused_setting(who: str, name: str, words: str) -> ConfigurationError | None:
    """Return what to change where a broker's error (`name` in Kafka's words) is about settings; None for any other.

    `who` is the group or the transactional id that was refused, `words` the broker's own.
    """
    found = _REFUSED.get(name)
    if found is None:
        return None
    what, next_step = found
    return ConfigurationError(
        f"{who}: {what}: {words}", kept="what was committed; nothing of it was changed", next_step=next_step
    )
