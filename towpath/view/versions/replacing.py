"""What a version's worker asks before it begins, and how it takes the place of a version that nobody folds.

The one rule: a person promotes a version whose predecessor is still folded; where the project has the predecessor no
more, its rows stand still, and readers are better off with the new one as soon as that has come as far. What a person
has taken from readers stays taken: rows that stand still may be better than wrong ones.
"""

import asyncio
from functools import partial
from typing import Any

import structlog

from towpath.errors import RefusedError, TowpathError
from towpath.settings import Settings
from towpath.stream.broker.port import Broker
from towpath.view.versions.building.shortfall import expired, require_whole
from towpath.view.versions.log import any_between, bounds_of
from towpath.view.versions.postgres import (
    WORKER,
    published_version,
    refusals_told,
    swap,
    taken_back,
    vector_of_version,
    views_connection,
)
from towpath.view.versions.standing import VersionDecision
from towpath.view.view import View

log = structlog.get_logger("towpath.view.versions.replacing")

REPLACE_SECONDS = 2.0
REFUSED_SECONDS = 30.0
"""After a refusal, which a person must see to."""


def require_topics(settings: Settings, view: View[Any], broker: Broker) -> None:
    """Raise RefusedError where `view` has not begun and its topics have lost their beginning, WorldError if away."""
    with views_connection(settings) as connection:
        vector = vector_of_version(connection, settings.project.name, view.name, view.version)
    require_whole(view, expired(view, bounds_of(broker, view.topics), vector))


def require_not_taken_back(connection: Any, decision: VersionDecision) -> None:
    """Raise RefusedError where a person took from readers the version that a worker would publish."""
    assert decision.version_after is not None
    taken = taken_back(connection, decision.view, decision.version_after)
    if taken is not None:
        raise RefusedError(
            f"{taken.actor} gave readers version {taken.version_after} in place of {taken.version_before}: "
            f"{taken.reason}",
            kept="what readers see, though nobody may fold it",
            next_step=f"towpath views promote {decision.view} --version {taken.version_before} --when-ready "
            "--reason REASON",
        )


async def replace_when_caught_up(settings: Settings, view: View[Any], orphan: int, broker: Broker) -> None:
    """Publish `view` in place of a version that nobody folds, once it has come as far.

    What refuses it, a person may put right: it is tried for as long as readers see the other one.
    """
    decision = VersionDecision(
        view.name,
        "promote",
        orphan,
        view.version,
        WORKER,
        f"version {orphan} is not in the project any more: nobody folds it",
    )

    def look() -> str | None:
        """Return why it is not published yet, None once readers do not see the other one any more."""
        ends = bounds_of(broker, view.topics).ends
        with views_connection(settings) as connection, refusals_told(connection, view.name, view.version):
            if published_version(connection, view.name) != orphan:
                return None
            require_not_taken_back(connection, decision)
            connection.commit()
            return swap(
                connection, settings.project.name, decision, ends=ends, has_records=partial(any_between, broker)
            )

    seconds, refused = REPLACE_SECONDS, ""
    while True:
        await asyncio.sleep(seconds)
        seconds = REPLACE_SECONDS
        try:
            reason = await asyncio.to_thread(look)
        except RefusedError as error:
            seconds = REFUSED_SECONDS
            if error.cause != refused:
                refused = error.cause
                log.warning(
                    "version is not published",
                    view=view.name,
                    version=view.version,
                    reason=error.cause,
                    next=error.next_step,
                )
        except TowpathError as error:
            log.warning("version waits to be published", view=view.name, version=view.version, reason=error.cause)
        else:
            if reason is None:
                log.info("readers see another version", view=view.name, instead_of=orphan)
                return
