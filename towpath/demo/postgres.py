"""Reads the views: how a run gets on, and the rows that its verdict compares with the fold of the log."""

from collections.abc import Collection, Iterable
from typing import Any

import psycopg
from psycopg.rows import class_row

from towpath.errors import WorldError
from towpath.orchestrator.sagas_view import NAME, SagaInstance
from towpath.outbox.names import VIEWS_DATABASE
from towpath.settings import Settings
from towpath.view import View
from towpath.view.postgres import ViewTable

_INSTANCES = f"SELECT * FROM {NAME} WHERE saga = %s AND key = ANY(%s)"  # noqa: S608 - a constant


class ViewsReader:
    """One connection to the views database, which nothing is written through."""

    def __init__(self, settings: Settings) -> None:
        try:
            self._connection = psycopg.connect(
                settings.postgres.database_url(VIEWS_DATABASE),
                autocommit=True,
                connect_timeout=10,
                **dict[str, Any](settings.postgres.connection_options()),
            )
        except psycopg.OperationalError as error:
            raise WorldError(f"the views' database: {str(error).strip()}", next_step="towpath status") from error

    def close(self) -> None:
        """Close what was opened."""
        self._connection.close()

    def instances(self, saga: str, keys: Collection[str]) -> list[SagaInstance]:
        """Return where the instances of `saga` for `keys` stand, as far as the view has come."""
        with self._connection.cursor(row_factory=class_row(SagaInstance)) as cursor:
            return cursor.execute(_INSTANCES, (saga, list(keys))).fetchall()

    def rows(self, views: Iterable[View[Any]]) -> dict[str, dict[str, Any]]:
        """Return every row of each view, by the name of its table and the row's key."""
        return {
            view.table: {getattr(row, view.key): row for row in ViewTable(view).all_rows(self._connection)}
            for view in views
        }
