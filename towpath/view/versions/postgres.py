"""The versions of a view in their database: which there are, which is published, and swapping them.

The one rule: the stable name is one SQL view over one version's table, and it is swapped in one transaction, in which
the new version has folded at least what the published one has. A reader sees the one or the other, never neither.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import resources
from typing import Any

import psycopg
from psycopg import errors, sql

from towpath.clock import Clock, SystemClock
from towpath.errors import NotFoundError, RefusedError, first_line
from towpath.outbox.names import VIEWS_DATABASE
from towpath.outbox.postgres import MAY_MAKE_TABLES, connected, permitted
from towpath.settings import Settings
from towpath.stream.broker.record import TopicPartition
from towpath.stream.engine.elsewhere.postgres import require_in_public
from towpath.view.versions.standing import Column, Shape, Vector, VersionDecision, missing, published_kept
from towpath.view.view import group_name, table_name

Connection = psycopg.Connection[Any]
HasRecords = Callable[[Mapping[TopicPartition, tuple[int, int]]], bool]
LOCK_TIMEOUT = "1s"
"""Longest wait for a lock while the swap is open: behind it readers queue."""
FOLLOW_SECONDS = 2.0
"""How long the published version's worker is held back while the new one takes what it lacks. Workers wait for a lock
for 5 s (towpath/stream/engine/postgres.py), so nothing fails there."""
WORKER = "worker"
"""The actor of a promotion that no person decided."""
LOOK_SECONDS = 0.02
RETRY_SECONDS = 0.5

_PUBLISHED = """
SELECT c.relname FROM pg_class v
  JOIN pg_rewrite r ON r.ev_class = v.oid
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
  JOIN pg_class c ON c.oid = d.refobjid AND c.relkind = 'r'
 WHERE v.oid = to_regclass(%s) AND v.relkind = 'v' LIMIT 1
"""
_TABLES = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid) AND relname ~ %s
"""
_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
 WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_KEY = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
 WHERE i.indrelid = to_regclass(%s) AND i.indisprimary
"""
_CHECKS = """
SELECT conname, obj_description(oid, 'pg_constraint') FROM pg_constraint
 WHERE conrelid = to_regclass(%s) AND contype = 'c' AND conname LIKE 'check\\_%%'
   AND obj_description(oid, 'pg_constraint') IS NOT NULL
"""
_INDEXES = """
SELECT array_agg(attname::text ORDER BY place)
  FROM pg_index CROSS JOIN unnest(indkey::int2[]) WITH ORDINALITY AS of (number, place)
  JOIN pg_attribute ON attrelid = indrelid AND attnum = number
 WHERE indrelid = to_regclass(%s) AND indpred IS NULL AND indexprs IS NULL GROUP BY indexrelid
"""
_GRANTS = """
SELECT name, CASE WHEN grantee = 0 THEN NULL ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable
  FROM (SELECT NULL AS name, relacl AS acl, relowner FROM pg_class WHERE oid = to_regclass(%(view)s)
        UNION ALL
        SELECT attname, attacl, relowner FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
         WHERE attrelid = to_regclass(%(view)s) AND attname = ANY(%(columns)s)) AS granted, aclexplode(acl)
 WHERE grantee <> relowner
"""
_VECTOR = """
SELECT topic, partition, next_offset FROM public.towpath_offsets WHERE application = %s ORDER BY topic, partition
"""
_DECIDE = """
INSERT INTO towpath_view_decisions (view, action, version_before, version_after, actor, reason, detail)
VALUES (%(view)s, %(action)s, %(version_before)s, %(version_after)s, %(actor)s, %(reason)s, %(detail)s)
"""
_FLAG = """
CREATE OR REPLACE FUNCTION {function}() RETURNS boolean LANGUAGE sql STABLE AS {body}
"""
_KEPT = ("towpath_offsets", "towpath_seen", "towpath_horizon", "towpath_parked")
# What a role lacks that is refused, with the role for its {}. Who replaces what it owns needs CREATE all the same.
_MAY_FOLLOW = (
    "GRANT SELECT, UPDATE ON public.towpath_offsets TO {}",
    "GRANT SELECT ON public.towpath_parked TO {}",
)
_MAY_FORGET = f"GRANT SELECT, UPDATE, DELETE ON {', '.join(f'public.{name}' for name in _KEPT)} TO {{}}"
_MAY_DECIDE = "GRANT SELECT, INSERT ON towpath_view_decisions TO {}"
_OWNS = "ALTER {} {} OWNER TO {{}}"


@contextmanager
def _needs(*statements: str) -> Iterator[None]:
    """Note on a refusal of what is done in here which statements let a role do it, with the role for their {}."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        for statement in statements:
            error.add_note(statement)
        raise


def views_connection(settings: Settings) -> AbstractContextManager[Connection]:
    """Connect to the views' database; commits at the end. Raises WorldError where it is away."""
    return connected(settings, VIEWS_DATABASE, kept="everything; the views go on from where they stood")


def lock_view(connection: Connection, view: str) -> None:
    """Let nobody else publish a version of `view`, or drop one, until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (view,))


def lock_version(connection: Connection, view: str, version: int, *, until: str = "the transaction ends") -> bool:
    """Let nobody else make, begin, publish or drop a version until the transaction ends (or `"the connection ends"`).

    Returns whether that can be; the transaction is good for nothing else if not. A build holds this lock for as long as
    it takes to begin, which may be hours, so nobody waits for it. Who takes the lock of a view too takes it after this.
    """
    function = "pg_advisory_xact_lock" if until == "the transaction ends" else "pg_advisory_lock"
    try:
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
        connection.execute(f"SELECT {function}(hashtextextended(%s, 3))", (table_name(view, version),))
        connection.execute("SET LOCAL lock_timeout TO DEFAULT")
    except errors.LockNotAvailable:
        return False
    return True


def create_decisions(connection: Connection) -> None:
    """Create the table of decisions where it is missing. Raises ConfigurationError where this role may not."""
    if connection.execute("SELECT to_regclass('towpath_view_decisions') IS NOT NULL").fetchall()[0][0]:
        return  # without a lock, which would last as long as the transaction
    with permitted(connection, MAY_MAKE_TABLES):
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('towpath view', 2))")
        connection.execute(resources.files(__package__).joinpath("versions.sql").read_bytes())


def note_decision(connection: Connection, decision: VersionDecision) -> None:
    """Write down what was done, in the transaction that does it."""
    with _needs(_MAY_DECIDE):
        connection.execute(_DECIDE, decision.to_json())


def published_version(connection: Connection, view: str) -> int | None:
    """Return the version that readers of the stable name see, None where there is none."""
    found = connection.execute(_PUBLISHED, (view,)).fetchone()
    number = None if found is None else re.fullmatch(rf"{re.escape(view)}_v(\d+)", found[0])
    return None if number is None else int(number[1])


def built_versions(connection: Connection, view: str) -> list[int]:
    """Return the versions that have a table, in rising order."""
    found = connection.execute(_TABLES, (rf"^{re.escape(view)}_v\d+$",)).fetchall()
    return sorted(int(name.removeprefix(f"{view}_v")) for (name,) in found)


def known_views(connection: Connection) -> list[str]:
    """Return the names of all views that have a published version."""
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'v' AND pg_table_is_visible(oid)"
        " AND relnamespace = current_schema()::regnamespace ORDER BY relname"
    ).fetchall()
    return [name for (name,) in found if published_version(connection, name) is not None]


def shape_of(connection: Connection, table: str) -> Shape | None:
    """Return what a table is made of, None where there is none."""
    columns = connection.execute(_COLUMNS, (table,)).fetchall()
    key = connection.execute(_KEY, (table,)).fetchone()
    if not columns:
        return None
    checks = dict(connection.execute(_CHECKS, (table,)).fetchall())
    return Shape(tuple(Column(*column) for column in columns), "" if key is None else key[0], checks)


def indexes_of(connection: Connection, table: str) -> set[tuple[str, ...]]:
    """Return the columns of each index that a table has, the one of its key too."""
    return {tuple(columns) for (columns,) in connection.execute(_INDEXES, (table,))}


def built_shape(connection: Connection, view: str, version: int) -> Shape:
    """Return what the table of a version is made of. Raises NotFoundError where it has none."""
    shape = shape_of(connection, table_name(view, version))
    if shape is None:
        raise NotFoundError(f"view {view} has no version {version}", next_step=f"towpath views status {view}")
    return shape


def has_offsets(connection: Connection) -> bool:
    """Return whether a worker has ever kept offsets in this database."""
    return bool(connection.execute("SELECT to_regclass('public.towpath_offsets') IS NOT NULL").fetchall()[0][0])


def vector_of(connection: Connection, application: str, *, locked: bool = False) -> dict[TopicPartition, int]:
    """Return the next offset of each partition that an application has begun; `locked` holds its workers back."""
    if not has_offsets(connection):
        return {}
    with _needs(*_MAY_FOLLOW):
        rows = connection.execute(_VECTOR + (" FOR UPDATE" if locked else ""), (application,)).fetchall()
    return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}


def vector_of_version(connection: Connection, project: str, view: str, version: int) -> dict[TopicPartition, int]:
    """Return how far a version has come: nowhere without a table, whatever a worker has noted since it was dropped."""
    if shape_of(connection, table_name(view, version)) is None:
        return {}
    return vector_of(connection, group_name(project, view, version))


def count_rows(connection: Connection, table: str) -> int:
    """Return how many rows a table has."""
    ((count,),) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchall()
    return int(count)


def publish(connection: Connection, view: str, version: int) -> None:
    """Let the stable name show `version`, in the connection's own transaction.

    What was granted on it stays, and on those of its columns that `version` has. Raises RefusedError where
    something in the database is built on the columns as they are, NotFoundError where the version has no table.
    """
    shape = built_shape(connection, view, version)
    name = sql.Identifier(view)
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in shape.columns)
    body = sql.SQL("VIEW {} AS SELECT {} FROM {}").format(name, columns, sql.Identifier(table_name(view, version)))
    # Readers see by the rights of the name's owner, before the swap and after a rollback too.
    tables = ", ".join(table_name(view, number) for number in built_versions(connection, view))
    owned = [] if published_version(connection, view) is None else [_OWNS.format("VIEW", view)]
    try:
        with _needs(MAY_MAKE_TABLES, f"GRANT SELECT ON {tables} TO {{}}", *owned), connection.transaction():
            connection.execute(sql.SQL("CREATE OR REPLACE ") + body)
    except errors.InvalidTableDefinition:  # other columns: the name is given to another SQL view
        names = [column.name for column in shape.columns]
        grants = connection.execute(_GRANTS, {"view": view, "columns": names}).fetchall()
        try:
            connection.execute(sql.SQL("DROP VIEW {}").format(name))
        except errors.DependentObjectsStillExist as error:
            raise RefusedError(
                f"version {version} of {view} has other columns, and the database has what is built on those of the "
                f"published one: {_dependents(error)}",
                kept="the published version",
                next_step="drop these, promote, and create them again",
            ) from error
        connection.execute(sql.SQL("CREATE ") + body)
        for column, grantee, privilege, grantable in grants:
            connection.execute(
                sql.SQL("GRANT {}{} ON {} TO {}{}").format(
                    sql.SQL(privilege),
                    sql.SQL("") if column is None else sql.SQL(" ({})").format(sql.Identifier(column)),
                    name,
                    sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee),
                    sql.SQL(" WITH GRANT OPTION" if grantable else ""),
                )
            )
    for number in built_versions(connection, view):
        flag_published(connection, view, number, published=number == version)


def _dependents(error: errors.DependentObjectsStillExist) -> str:
    return (error.diag.message_detail or "").replace("\n", "; ")


def flag_name(table: str) -> str:
    """Return the name of the function by which a version's trigger knows whether readers see it."""
    return f"{table}_is_published"


def flag_published(connection: Connection, view: str, version: int, *, published: bool) -> None:
    """Let a version's trigger tell listeners of changes, or not, where it has one."""
    function = flag_name(table_name(view, version))
    if connection.execute("SELECT to_regproc(%s) IS NOT NULL", (function,)).fetchall()[0][0]:
        with _needs(MAY_MAKE_TABLES, _OWNS.format("FUNCTION", f"{function}()")):
            create_flag(connection, table_name(view, version), published=published)


def create_flag(connection: Connection, table: str, *, published: bool) -> None:
    """Let a function say whether readers see a version's table."""
    name, body = flag_name(table), f"SELECT {'true' if published else 'false'}"
    if connection.execute("SELECT prosrc FROM pg_proc WHERE oid = to_regproc(%s)", (name,)).fetchone() != (body,):
        connection.execute(sql.SQL(_FLAG).format(function=sql.Identifier(name), body=sql.Literal(body)))


_HELD = (errors.LockNotAvailable, errors.DeadlockDetected)
_ALONE = """
SELECT count(*) FROM (
  SELECT partition, key, behind FROM public.towpath_parked WHERE application = %s
  EXCEPT SELECT partition, key, behind FROM public.towpath_parked WHERE application = %s) AS alone
"""


@contextmanager
def refusals_told(connection: Connection, view: str, version: int) -> Iterator[None]:
    """Raise RefusedError, which says who must do what, where the database refuses to let a version be published.

    Locks that are held and a connection that is lost are no refusals.
    """
    try:
        yield
    except psycopg.Error as error:
        if connection.broken or isinstance(error, _HELD):
            raise
        raise RefusedError(
            f"the database refuses to publish version {version} of view {view}: {first_line(error)}",
            kept="the published version",
            next_step=f"{_to_do(connection, error)}; then promote it again, which a worker that is to "
            "publish it does by itself",
        ) from error


def _to_do(connection: Connection, error: psycopg.Error) -> str:
    """Return what a person must do in the database that has refused something: what `_needs` has noted, if anything."""
    noted: list[str] = getattr(error, "__notes__", [])
    if not noted:
        return "see to that in the database"
    role = sql.Identifier(connection.info.user).as_string(connection)
    return f"have a superuser, or the owner of what it names, run: {'; '.join(one.format(role) for one in noted)}"


class _NotYetError(Exception):
    """Rolls the swap back; the argument says why."""


def swap(
    connection: Connection,
    project: str,
    decision: VersionDecision,
    *,
    ends: Vector,
    has_records: HasRecords,
    force: bool = False,
    lock_timeout: str = LOCK_TIMEOUT,
    clock: Clock | None = None,
) -> str | None:
    """Publish `decision.version_after`, once; return why it cannot be done yet, None when it is done.

    `ends` is how far the new version must have come in the topics that the published one does not fold;
    `has_records` says whether a range of offsets has any. The published version's worker is held back meanwhile, so
    what was visible stays visible. With `force` the new version may lack records. Raises what `publish` raises, and
    RefusedError where it lacks those of keys in quarantine that the published one has, and where the database refuses.
    """
    view, version = decision.view, decision.version_after
    assert version is not None
    try:
        with refusals_told(connection, view, version), connection.transaction():
            if not lock_version(connection, view, version):
                raise _NotYetError(f"version {version} is being built")
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(lock_timeout))
            lock_view(connection, view)
            before = published_version(connection, view)
            if before != decision.version_before:
                raise RefusedError(
                    f"version {before} of {view} is published, not {decision.version_before}: it was swapped meanwhile",
                    kept="what is published now",
                    next_step=f"towpath views status {view}",
                )
            if not force:
                _follow(connection, project, decision, ends, has_records, clock or SystemClock())
                _require_none_in_quarantine(connection, project, decision)
            publish(connection, view, version)
            note_decision(connection, decision)
    except _NotYetError as reason:
        return str(reason)
    except _HELD:
        return "a reader, a worker or a build holds it in an open transaction"
    return None


def _follow(
    connection: Connection, project: str, decision: VersionDecision, ends: Vector, has_records: HasRecords, clock: Clock
) -> None:
    """Hold the published version back, and wait until the new one has folded what it has."""
    view, before, after = decision.view, decision.version_before, decision.version_after
    assert after is not None
    published = {} if before is None else vector_of(connection, group_name(project, view, before), locked=True)
    wanted = {**{place: end for place, end in ends.items() if place not in published}, **published}
    deadline = clock.monotonic_seconds() + FOLLOW_SECONDS
    known: dict[TopicPartition, tuple[int, int]] = {}  # what was asked about last, and has records
    while True:
        vector = vector_of(connection, group_name(project, view, after))
        lacks = {place: bounds for place, bounds in missing(vector, wanted).items() if place in ends}
        unbegun = [place for place in lacks if place not in vector]
        if not lacks or (not unbegun and lacks != known and not has_records(lacks)):
            return
        known = lacks
        if unbegun or clock.monotonic_seconds() > deadline:
            records = sum(high - low for low, high in lacks.values())
            worst = max(lacks, key=lambda place: lacks[place][1] - lacks[place][0])
            raise _NotYetError(f"version {after} has yet to read {records} offsets, most of them of {worst}")
        clock.sleep(LOOK_SECONDS)


def _require_none_in_quarantine(connection: Connection, project: str, decision: VersionDecision) -> None:
    """Raise RefusedError where readers would miss records of keys that only the new version has in quarantine."""
    view, before, after = decision.view, decision.version_before, decision.version_after
    assert after is not None
    if not has_offsets(connection):
        return
    published = None if before is None else group_name(project, view, before)
    with _needs(*_MAY_FOLLOW):
        ((keys,),) = connection.execute(_ALONE, (group_name(project, view, after), published)).fetchall()
    if keys:
        raise RefusedError(
            f"version {after} of view {view} has keys in quarantine ({keys}): readers would miss their records",
            kept="what is published",
            next_step="towpath dead list names them; redrive or drop them first; or show readers the version without "
            "them: --force",
        )


_LAST = """
SELECT view, action, version_before, version_after, actor, reason, detail FROM towpath_view_decisions
 WHERE view = %s AND action = ANY(%s) AND (%s::int IS NULL OR version_before = %s) ORDER BY number DESC LIMIT 1
"""


def last_swap(connection: Connection, view: str) -> VersionDecision | None:
    """Return the last promotion or rollback of `view`."""
    return _last(connection, view, ["promote", "rollback"], None)


def taken_back(connection: Connection, view: str, version: int) -> VersionDecision | None:
    """Return the decision by which a person gave readers an older version back, where that was the last word on it."""
    last = _last(connection, view, ["promote", "rollback", "drop"], version)
    if last is None or last.version_after is None or last.version_after > version:
        return None
    if (last.action, last.actor) == ("promote", WORKER):  # a person may be called so, and alone takes versions back
        return None
    return last


def _last(connection: Connection, view: str, actions: list[str], before: int | None) -> VersionDecision | None:
    if connection.execute("SELECT to_regclass('towpath_view_decisions') IS NULL").fetchall()[0][0]:
        return None
    with _needs(_MAY_DECIDE):
        found = connection.execute(_LAST, (view, actions, before, before)).fetchone()
    return None if found is None else VersionDecision(*found)


def drop(connection: Connection, project: str, decision: VersionDecision) -> None:
    """Drop a version that nobody reads, with all that was kept for it.

    Raises RefusedError for the published one, for one that is being built or that somebody holds in an open
    transaction, and where the database refuses: something in it is built on the version, or another owns it.
    ConfigurationError where the version's offsets lie in another schema.
    """
    view, version = decision.view, decision.version_before
    assert version is not None
    if not lock_version(connection, view, version):
        raise _held(view, version, f"version {version} of view {view} is being built")
    connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
    table = table_name(view, version)
    try:
        lock_view(connection, view)
        if published_version(connection, view) == version:
            others = [number for number in built_versions(connection, view) if number != version]
            raise published_kept(view, version, others)
        built_shape(connection, view, version)
        require_in_public(connection, group_name(project, view, version))  # else they would stay, of no rows
        # A worker takes its offsets first, its table then: in another order each would wait for the other.
        vector_of(connection, group_name(project, view, version), locked=True)
        with _needs(_OWNS.format("TABLE", table)):
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))
        for function in (f"{table}_notify", flag_name(table)):
            with _needs(_OWNS.format("FUNCTION", f"{function}()")):
                connection.execute(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(sql.Identifier(function)))
        forget_version(connection, project, view, version)
        note_decision(connection, decision)
    except _HELD as error:
        raise _held(
            view, version, f"a reader, a worker or a build holds version {version} of {view} in an open transaction"
        ) from error
    except errors.DependentObjectsStillExist as error:
        raise RefusedError(
            f"the database has what is built on version {version} of view {view}: {_dependents(error)}",
            kept="every version",
            next_step=f"drop these, or build them on {view}, the name that readers use; then: "
            f"{_drop_again(view, version)}",
        ) from error
    except psycopg.Error as error:
        if connection.broken:
            raise
        raise RefusedError(
            f"the database refuses to drop version {version} of view {view}: {first_line(error)}",
            kept="every version",
            next_step=f"{_to_do(connection, error)}; then: {_drop_again(view, version)}",
        ) from error


def _held(view: str, version: int, cause: str) -> RefusedError:
    return RefusedError(
        cause,
        kept="every version",
        next_step=f"once that has ended: {_drop_again(view, version)}",
    )


def _drop_again(view: str, version: int) -> str:
    return f"towpath views drop {view} --version {version} --reason REASON"


def forget_version(connection: Connection, project: str, view: str, version: int) -> None:
    """Forget how far a version has come: its offsets, ids and parked keys."""
    if has_offsets(connection):
        with _needs(_MAY_FORGET):
            for kept in _KEPT:
                connection.execute(
                    sql.SQL("DELETE FROM {} WHERE application = %s").format(sql.Identifier("public", kept)),
                    (group_name(project, view, version),),
                )
