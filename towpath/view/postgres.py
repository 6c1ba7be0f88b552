"""Keeps the rows of a view in PostgreSQL: two statements a batch, however many records it had."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, Generic, TypeVar
from uuid import UUID

import psycopg
from psycopg import errors, sql
from psycopg.rows import class_row

from towpath.errors import ConfigurationError, WorldError, first_line
from towpath.outbox.postgres import MAY_MAKE_TABLES, permitted
from towpath.settings import Settings
from towpath.view.declaring import checks_of
from towpath.view.versions.postgres import (
    create_decisions,
    create_flag,
    flag_name,
    forget_version,
    indexes_of,
    lock_version,
    lock_view,
    publish,
    published_version,
    shape_of,
    views_connection,
)
from towpath.view.versions.standing import DECLARED_IN, Column, Shape, require_shape
from towpath.view.view import View, column_types

Row = TypeVar("Row")

COLUMN_TYPES: Mapping[Any, str] = {
    str: "text",
    int: "bigint",
    bool: "boolean",
    float: "double precision",
    Decimal: "numeric",
    datetime: "timestamptz",
    date: "date",
    UUID: "uuid",
    bytes: "bytea",
}

_NAMES = {"timestamptz": "timestamp with time zone"}
"""Types that PostgreSQL describes by another name than the one they are declared by."""

# Only the version that readers see tells listeners: one that is being built would tell them its whole history.
_NOTIFY = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF {flag}() THEN
    PERFORM pg_notify({channel}, NEW.{field}::text);
  END IF;
  RETURN NULL;
END $body$;
CREATE OR REPLACE TRIGGER {function} AFTER INSERT OR UPDATE ON {table}
  FOR EACH ROW EXECUTE FUNCTION {function}();
"""


def create_table(settings: Settings, view: View[Any]) -> int:
    """Create the table of `view` where it is missing, and return the version that readers see from then on.

    Raises WorldError where the database is away or a build begins the version, ContractError where the version was
    built with another row.
    """
    with views_connection(settings) as connection:
        create_decisions(connection)
        if not lock_version(connection, view.name, view.version):
            raise WorldError(
                f"version {view.version} of view {view.name} is being built",
                kept="what that build has read; nothing is folded meanwhile",
                next_step="nothing: the worker starts once that has begun the version",
            )
        if shape_of(connection, view.table) is None:
            # Begun anew, whatever the worker of a version that was dropped has noted since.
            forget_version(connection, settings.project.name, view.name, view.version)
        return ViewTable(view).create(connection)


class TableGone(WorldError):
    """The table of a version is not there: the version was dropped under its worker."""

    def __init__(self, view: View[Any]) -> None:
        super().__init__(
            f"view {view.name}: {view.table} is not there: version {view.version} was dropped",
            kept="the records: none is passed over",
            next_step=f"take version {view.version} out of {DECLARED_IN} and stop this worker; or start it again, "
            "which builds the version anew",
        )


class ViewTable(Generic[Row]):
    """The table of one view in its current version."""

    def __init__(self, view: View[Row]) -> None:
        self.view = view
        self._columns = column_types(view, COLUMN_TYPES)
        self._checks = checks_of(view.row)
        self._fields = [attrgetter(name) for name, _ in self._columns]
        table, key = sql.Identifier(view.table), sql.Identifier(view.key)
        names = [sql.Identifier(name) for name, _ in self._columns]
        arrays = sql.SQL(", ").join(
            sql.SQL("%s::{}[]").format(sql.SQL(kind.removesuffix(" NOT NULL"))) for _, kind in self._columns
        )
        updates = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in names)
        columns = sql.SQL(", ").join(names)
        self._select = sql.SQL("SELECT {} FROM {} WHERE {} = ANY(%s) FOR UPDATE").format(columns, table, key)
        self._upsert = sql.SQL("INSERT INTO {} ({}) SELECT * FROM unnest({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
            table, columns, arrays, key, updates
        )
        self._delete = sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(table, key)
        self._all = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(columns, table, key)

    def create(self, connection: psycopg.Connection[Any]) -> int:
        """Create the table and, where no version is published yet, the SQL view that readers use.

        Returns the version that is published then. Whoever may not be alone holds the version's lock. Raises
        ContractError where the table is there, and was made for another row, ConfigurationError where this role may
        not make what is missing.
        """
        self.create_unseen(connection)
        return self.show(connection)

    def create_unseen(self, connection: psycopg.Connection[Any]) -> None:
        """Create the table, and hold up no other version, however long the transaction lasts. Raises as `create`."""
        create_decisions(connection)
        with permitted(connection, MAY_MAKE_TABLES):
            self._create_missing(connection)

    def _create_missing(self, connection: psycopg.Connection[Any]) -> None:
        view, table = self.view, sql.Identifier(self.view.table)
        found = shape_of(connection, view.table)
        if found is not None:
            require_shape(view.name, view.version, self.shape, found)
        else:
            self._create_table(connection)
        # Known by their columns, and named by PostgreSQL: a name of ours might be cut at 63 bytes, or be another's.
        for index in sorted(set(view.all_indexes) - indexes_of(connection, view.table)):
            columns = sql.SQL(", ").join(map(sql.Identifier, index))
            connection.execute(sql.SQL("CREATE INDEX ON {} ({})").format(table, columns))

    def show(self, connection: psycopg.Connection[Any]) -> int:
        """Publish a version that was created unseen where none is published yet; return the one that is then.

        The view is held until the transaction ends, so this comes last in one that lasts long.
        """
        with permitted(connection, MAY_MAKE_TABLES):
            return self._show(connection)

    def _show(self, connection: psycopg.Connection[Any]) -> int:
        view, table = self.view, sql.Identifier(self.view.table)
        published = published_version(connection, view.name)
        if published in (None, view.version):  # else nobody publishes this one meanwhile: that takes its own lock
            lock_view(connection, view.name)
            published = published_version(connection, view.name)
        if view.notify_field:
            create_flag(connection, view.table, published=published in (None, view.version))
            connection.execute(
                sql.SQL(_NOTIFY).format(
                    function=sql.Identifier(f"{view.table}_notify"),
                    flag=sql.Identifier(flag_name(view.table)),
                    channel=sql.Literal(view.name),
                    field=sql.Identifier(view.notify_field),
                    table=table,
                )
            )
        if published is None:
            publish(connection, view.name, view.version)
            return view.version
        return published

    def _create_table(self, connection: psycopg.Connection[Any]) -> None:
        table = sql.Identifier(self.view.table)
        parts = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in self._columns]
        parts.append(sql.SQL("PRIMARY KEY ({})").format(sql.Identifier(self.view.key)))
        for name, condition in self._checks.items():
            # The condition is the project's own code, as its folds are.
            parts.append(sql.SQL("CONSTRAINT {} CHECK ({})").format(sql.Identifier(name), sql.SQL(condition)))
        try:
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(parts)))
        except errors.InsufficientPrivilege:
            raise
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            raise ConfigurationError(
                f"view {self.view.name}: its table cannot be created: {first_line(error)}",
                kept="every version that is there",
                next_step="fix the condition of a RowCheck: it is SQL about the row's columns",
            ) from error
        for name, condition in self._checks.items():
            # As it was declared: PostgreSQL keeps conditions in a form of its own.
            connection.execute(
                sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
                    sql.Identifier(name), table, sql.Literal(condition)
                )
            )

    @property
    def shape(self) -> Shape:
        """Return what the row declares."""
        columns = []
        for name, kind in self._columns:
            plain = kind.removesuffix(" NOT NULL")
            columns.append(Column(name, _NAMES.get(plain, plain), kind != plain or name == self.view.key))
        return Shape(tuple(columns), self.view.key, self._checks)

    def publish(self, connection: psycopg.Connection[Any]) -> None:
        """Let readers of the SQL view see this version, in one step, whatever it has folded."""
        publish(connection, self.view.name, self.view.version)

    def rows(self, connection: psycopg.Connection[Any], keys: Iterable[str]) -> dict[str, Row]:
        """Return the rows of `keys`, locked until the transaction ends; keys without a row are left out.

        A row that is not there yet cannot be locked. Where two workers may make it, they take turns at the table: what
        the second reads, in a statement that begins after the first has committed, has the first one's rows. One lock
        for all keys, since a unit that took several, batch by batch, could meet another that took them the other way.
        Raises TableGone where the table is not there.
        """
        if self.view.many_keys:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (self.view.table,))
        with connection.cursor(row_factory=class_row(self.view.row)) as cursor:
            try:
                cursor.execute(self._select, (list(keys),))
            except errors.UndefinedTable as error:
                raise TableGone(self.view) from error
            return {getattr(row, self.view.key): row for row in cursor}

    def all_rows(self, connection: psycopg.Connection[Any]) -> list[Row]:
        """Return every row, in the order of the keys."""
        with connection.cursor(row_factory=class_row(self.view.row)) as cursor:
            return cursor.execute(self._all).fetchall()

    def store(self, connection: psycopg.Connection[Any], changed: Mapping[str, Row | None]) -> None:
        """Write the rows that changed; None removes the row of its key."""
        written = [row for row in changed.values() if row is not None]
        removed = [key for key, row in changed.items() if row is None]
        if written:
            connection.execute(self._upsert, [list(map(field, written)) for field in self._fields])
        if removed:
            connection.execute(self._delete, (removed,))
