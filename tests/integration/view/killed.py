"""Does one thing with a view's versions in a process that SIGKILL ends at one of its calls to the database."""

import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
from pydantic import SecretStr

from tests.integration.view.sums import PROJECT, THREE, TWO, ends
from tests.reference_records import CODEC
from towpath.settings import Settings, load_settings
from towpath.view.versions.building.postgres import begin_at_topics, begin_with_rows
from towpath.view.versions.log import Bounds
from towpath.view.versions.postgres import drop, swap, views_connection
from towpath.view.versions.standing import VersionDecision

PROMOTE = VersionDecision("sums", "promote", 1, 2, "test", "a test")
ROLLBACK = VersionDecision("sums", "rollback", 2, 1, "test", "a test")
BUILD = VersionDecision("sums", "build", 1, 3, "test", "a test")
DROP = VersionDecision("sums", "drop", 3, None, "test", "a test")


def settings_of(database_url: str) -> Settings:
    """Return settings whose views are in that database."""
    settings = load_settings(environment=False)
    postgres = settings.postgres.model_copy(update={"urls": {"views": SecretStr(database_url)}})
    return settings.model_copy(update={"postgres": postgres})


def do(action: str, database_url: str) -> None:
    """Do it, in one transaction, as the command does. Raises what it raises, TimeoutError where it is not to be yet."""
    with views_connection(settings_of(database_url)) as connection:
        if action in ("promote", "rollback"):
            decision = PROMOTE if action == "promote" else ROLLBACK
            reason = swap(connection, PROJECT, decision, ends=ends(), has_records=lambda _: True)
            if reason is not None:
                raise TimeoutError(reason)
        elif action == "build from snapshot":
            begin_with_rows(connection, PROJECT, THREE, BUILD, CODEC)
        elif action == "build from topic":
            topics = {place.topic: "topic-id" for place in ends()}
            begin_at_topics(connection, PROJECT, THREE, Bounds(dict.fromkeys(ends(), 0), ends(), topics), BUILD)
        else:
            drop(connection, PROJECT, DROP)


def killed_at(call: int, action: str, database_url: str, *, after: bool) -> None:
    """Do it, and be killed at the n-th time that the database is asked, before or after it has answered."""
    count = 0
    asked: Callable[..., Any] = psycopg.Connection.wait

    def wait(connection: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count > call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = asked(connection, *arguments, **options)
        if count > call:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    connections: Any = psycopg.Connection
    connections.wait = wait
    do(action, database_url)


__all__ = ["BUILD", "DROP", "PROMOTE", "ROLLBACK", "THREE", "TWO", "do", "killed_at"]
