"""Who is at fault where PostgreSQL refuses something: one table, by SQLSTATE. Pure.

The one rule: what would go well later, or for a person who attends to the database, waits (a dependency); what the same
record would meet again and again is its own fault (the handler's: dead after its attempts). Waiting for the wrong one
stops a partition for ever, and so does nothing for what it protects.

Source: PostgreSQL 18, appendix A, "PostgreSQL Error Codes".
"""

from towpath.stream.engine.failures import Blame

_WORLD, _HANDLER = Blame.WORLD, Blame.HANDLER

CLASSES: dict[str, Blame] = {
    "01": _HANDLER,  # warning
    "02": _HANDLER,  # no data
    "03": _HANDLER,  # SQL statement not yet complete
    "08": _WORLD,  # connection exception
    "09": _HANDLER,  # triggered action exception
    "0A": _HANDLER,  # feature not supported
    "0B": _HANDLER,  # invalid transaction initiation
    "0F": _HANDLER,  # locator exception
    "0L": _HANDLER,  # invalid grantor
    "0P": _HANDLER,  # invalid role specification
    "0Z": _HANDLER,  # diagnostics exception
    "10": _HANDLER,  # XQuery error
    "20": _HANDLER,  # case not found
    "21": _HANDLER,  # cardinality violation
    "22": _HANDLER,  # data exception
    "23": _HANDLER,  # integrity constraint violation
    "24": _HANDLER,  # invalid cursor state
    "25": _HANDLER,  # invalid transaction state: the handler ended or broke its transaction, or made it read-only
    "26": _HANDLER,  # invalid SQL statement name
    "27": _HANDLER,  # triggered data change violation
    "28": _WORLD,  # invalid authorization: a password was changed, a role lost its login
    "2B": _HANDLER,  # dependent privilege descriptors still exist
    "2D": _HANDLER,  # invalid transaction termination
    "2F": _HANDLER,  # SQL routine exception
    "34": _HANDLER,  # invalid cursor name
    "38": _HANDLER,  # external routine exception
    "39": _HANDLER,  # external routine invocation exception
    "3B": _HANDLER,  # savepoint exception
    "3D": _WORLD,  # invalid catalog name: the database is not there (yet, any more)
    "3F": _HANDLER,  # invalid schema name
    "40": _WORLD,  # transaction rollback: serialization failure, deadlock
    "42": _HANDLER,  # syntax error or access rule violation
    "44": _HANDLER,  # with check option violation
    "53": _WORLD,  # insufficient resources: disk full, out of memory, too many connections
    "54": _HANDLER,  # program limit exceeded: an index row too large, a statement too complex
    "55": _HANDLER,  # object not in prerequisite state: its own triggers still wait for a table, say
    "57": _WORLD,  # operator intervention: shut down, starting, killed
    "58": _WORLD,  # system error: I/O error, a file that is not there
    "72": _WORLD,  # snapshot failure
    "F0": _WORLD,  # configuration file error
    "HV": _HANDLER,  # foreign data wrapper error
    "P0": _HANDLER,  # PL/pgSQL error: RAISE, assertions
    "XX": _HANDLER,  # internal error: mostly what this statement made the server stumble over
}

CODES: dict[str, Blame] = {
    "40002": _HANDLER,  # transaction integrity constraint violation: not a matter of timing
    "53400": _HANDLER,  # configuration limit exceeded: this statement's temporary files, say
    "55P03": _WORLD,  # lock not available, in time or at once
    "57014": _HANDLER,  # query cancelled: by its time-out, which it would meet again
    "HV00N": _WORLD,  # a foreign server cannot be reached
    "XX001": _WORLD,  # data corrupted: a person has to look at the database, not at the record
    "XX002": _WORLD,  # index corrupted
}
"""Codes whose blame is not their class's."""


def blame_of(sqlstate: str) -> Blame:
    """Return who is at fault where the server answered with `sqlstate`.

    A class that is not in the table (an extension's own) is the handler's: what never changes must not wait for ever.
    """
    return CODES.get(sqlstate) or CLASSES.get(sqlstate[:2], _HANDLER)
