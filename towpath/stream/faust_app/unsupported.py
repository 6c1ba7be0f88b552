"""What Faust offers and this transport cannot keep its promise with: refused at start, with what to use instead.

The one rule: nothing is silently wrong. What is not refused here works, and has a test.
"""

from typing import Any

from towpath.errors import ConfigurationError


def refuse_app(app: Any) -> None:
    """Raise ConfigurationError for settings, tables and agents that this transport does not serve."""
    conf = app.conf
    if str(conf.processing_guarantee).lower().endswith("exactly_once"):
        raise ConfigurationError(
            "processing_guarantee='exactly_once' is Faust's own, and would open transactions of its own",
            next_step="leave it out: every agent on this transport is exactly once",
        )
    if conf.stream_publish_on_commit:
        raise ConfigurationError(
            "stream_publish_on_commit is Faust's own", next_step="leave it out: sends are transactional"
        )
    if conf.producer_threaded:
        raise ConfigurationError(
            "producer_threaded would send from another thread, outside the unit of work", next_step="leave it out"
        )
    if len(app.tables):
        raise ConfigurationError(
            f"tables are not served: {', '.join(sorted(app.tables))}",
            next_step="keep state with app.unit.state(changelog, partition): its changelog is part of the transaction",
        )
    for agent in app.agents.values():
        if agent.concurrency > 1:
            raise ConfigurationError(
                f"agent {agent.name} has concurrency {agent.concurrency}: records of one key would overtake each other",
                next_step="run more workers: each takes partitions of its own",
            )
        if agent.isolated_partitions:
            raise ConfigurationError(
                f"agent {agent.name} has isolated_partitions",
                next_step="leave it out, or take batches: app.batch_topic",
            )


def refuse_topics(app: Any, names: list[str]) -> None:
    """Raise ConfigurationError where a topic is taken one by one and in batches, or by a pattern."""
    taken: dict[str, bool] = {}
    for channel in app.topics:
        if channel.pattern:
            raise ConfigurationError("a topic by pattern cannot be checked at start", next_step="name the topics")
        if not channel.acks:
            raise ConfigurationError(
                f"{channel}: acks=False would leave its records out of the unit of work", next_step="leave it out"
            )
        batches = bool(getattr(channel, "takes_batches", False))
        for name in channel.topics:
            if taken.setdefault(name, batches) != batches:
                raise ConfigurationError(
                    f"{name} is taken one by one by one agent and in batches by another",
                    next_step="take it the same way in both",
                )
    for name in names:
        if name.endswith(".dead"):
            raise ConfigurationError(
                f"{name} is a dead-letter topic",
                next_step=f"look at it with `towpath dead list {name}`, and redrive from there",
            )


def refused_stream_method(name: str, instead: str) -> ConfigurationError:
    """Return the error for a method of streams that breaks the unit of work."""
    return ConfigurationError(f"stream.{name} is not served by this transport", next_step=instead)
