"""What is safe and what to run for each class of error, whoever raises it. The cause is the class's own docstring.

A test holds this against the classes that there are, and the commands against those that exist.
"""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import towpath
from towpath.errors import TowpathError

RECORD = "The record, in its topic; the offset before it is committed."
UNIT = "Everything before this unit of work; what it wrote is seen by nobody."
WORKER = "Nothing to do: the worker tries again by itself. If it lasts: `towpath status`, `towpath doctor`."

KEPT_AND_NEXT: dict[str, tuple[str, str]] = {
    # Who must act: the user's own code and settings
    "ProgrammerError": ("What ran before.", "Fix the code that the message names."),
    "ConfigurationError": (
        "Everything: it is raised before anything is changed.",
        "Fix the setting, then `towpath doctor`.",
    ),
    "ContractError": ("What is released and registered.", "`towpath contracts test` names file and line."),
    "BrokenSchemas": (
        "What is released and registered.",
        "Fix each file that is listed, then `towpath contracts test`.",
    ),
    "NotAsRecorded": ("The recorded run, as it is.", "`towpath saga test` shows the first difference."),
    "UndeclaredReply": (
        "The command, unanswered; nothing was committed.",
        "Declare the reply in the service's handler.",
    ),
    "OutputRefused": (
        UNIT,
        "Write what the topic takes (`towpath contracts test`), or let it take more: `towpath provision`.",
    ),
    "RefusedEarlier": (UNIT, "As for `OutputRefused`; the record is one that the same unit of work wrote before."),
    "LetterRefused": (RECORD, "Let the dead-letter topic take it (`max.message.bytes`), then `towpath provision`."),
    "HandlerTooSlow": (UNIT, "Make the handler shorter, or raise `[stream] batch_seconds_max`."),
    "ChangeTooLarge": (RECORD, "Have the view tell of less in a row, then `towpath dead redrive TOPIC POSITION`."),
    "WorkerStalled": (
        RECORD,
        "See in `towpath logs NAME` what each thread stood at; give what a handler waits for a time-out.",
    ),
    "HandlerExit": (
        RECORD,
        "Fix the handler, or name the record in `[stream.dead_records]`, then `towpath restart NAME`.",
    ),
    "DeclaredDead": (
        "The record, untouched, as a dead letter.",
        "Fix the handler, take the record out of `[stream.dead_records]`, then `towpath dead redrive TOPIC POSITION`.",
    ),
    "TransactionEnded": (
        "The record; of the unit nothing.",
        "Take out the COMMIT or ROLLBACK, `towpath restart NAME`, then `towpath dead redrive TOPIC POSITION`.",
    ),
    "UnitClosed": (UNIT, "Send and keep state within the call that got the unit."),
    # What another system wrote
    "PeerError": ("The record, as a dead letter.", "`towpath dead list`, then `towpath dead show TOPIC`."),
    "UndecodableRecord": (
        "The record, untouched, as a dead letter.",
        "`towpath dead list`; redrive it once it can be read.",
    ),
    "Undecodable": ("The record, untouched, as a dead letter.", "`towpath dead list`; redrive it once it can be read."),
    "UnknownSchema": (
        "The record: the registry is asked for its schema first.",
        "`towpath contracts register`, then redrive.",
    ),
    "MalformedHeaders": ("The record, untouched, as a dead letter.", "`towpath dead list`, and tell whoever wrote it."),
    "Malformed": ("The command, untouched, as a dead letter.", "`towpath dead list`, and tell whoever wrote it."),
    "BeyondDedupHorizon": (
        "The record, as a dead letter: nothing was done twice.",
        "`towpath dead list`; drop or redrive it.",
    ),
    "BeyondInbox": (
        "The command, as a dead letter: nothing was done twice.",
        "`towpath dead list`, then `towpath saga list`.",
    ),
    "WrongRow": (
        "The record, as a dead letter; the row as it was.",
        "Fix the view's `key` or `row_key`, then redrive.",
    ),
    # What is away
    "WorldError": ("Everything that was committed.", WORKER),
    "BrokerAway": ("Everything that was committed.", WORKER),
    "DatabaseAway": ("Everything that was committed.", WORKER),
    "OutcomeUnknown": ("What was committed; a new producer finds out whether this was.", WORKER),
    "TransactionAborted": (UNIT, WORKER),
    "StaleMember": (UNIT, WORKER),
    "MemberHung": (UNIT, WORKER),
    "MemberSpent": (UNIT, WORKER),
    "SchemaLearned": (RECORD, WORKER),
    "StoreDamaged": ("The state, in its changelog: the store is rebuilt from it.", WORKER),
    "TableGone": (
        "The records: none is passed over.",
        "Stop the worker of the version that was dropped; or start it again, and it builds that anew.",
    ),
    "NotYetRead": (
        "The event, which the view will fold.",
        "Ask again; `towpath views status VIEW` says how far it is.",
    ),
    "CorruptDownload": ("What is in the cache and whole.", "`towpath up` again; else set `[stack] maven_repository`."),
    "ProcessFailed": ("The data of the stack.", "`towpath logs NAME`, fix the cause, then `towpath up`."),
    # What waits for a person
    "PartitionHeld": (
        "The partition from there on; the others go on.",
        "The message names the command; `towpath status` lists all.",
    ),
    "MissingVersion": ("The instance as it is.", "Deploy the version, or `towpath saga upgrade OLD NEW --apply`."),
    "OtherDefinition": ("The instance as it is.", "Give the changed definition a version of its own."),
    "TooManyDead": ("All records: none was diverted.", "Fix the common cause, then start the worker."),
    # What would lose or repeat something
    "RefusedError": ("Everything as it was.", "The message says what would be lost, and what to run instead."),
    "SlotTaken": ("The other worker and its work.", "`towpath run NAME --slot SLOT`, each worker its own."),
    "MemberFenced": ("The other worker and its work.", "`towpath run NAME --slot SLOT`, each worker its own."),
    "ProducerFenced": (
        "What the other one has committed.",
        "See that one worker alone has the slot: `towpath status`.",
    ),
    # What is asked for
    "NotFoundError": ("Everything as it was.", "The message lists what there is."),
    "SupervisorSilent": (
        "The data, and what it runs as long as it lives.",
        "The same command again; if it stays silent, `kill -KILL` the process that is named, then `towpath up`.",
    ),
    "NotRunning": ("The data of the stack.", "`towpath up`"),
    "PartlyDoneError": ("What was done.", "Run the same command again: it does the rest."),
    "NotEnded": ("The saga, which goes on.", "Await again; `towpath saga why SAGA KEY` says what it waits for."),
    "NotCompleted": ("What the saga did, in its history.", "`towpath saga list`, then `towpath saga why SAGA KEY`."),
    "NotAnswered": ("What was asked, which is still to be decided.", "Await again; `towpath saga why SAGA KEY`."),
}


def error_classes() -> Iterator[type[TowpathError]]:
    """Yield every class of errors that leaves a module of the engine, those of `towpath.errors` first."""
    for module in pkgutil.walk_packages(towpath.__path__, "towpath."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    seen: dict[type[TowpathError], None] = {}
    waiting: list[type[TowpathError]] = [TowpathError]
    while waiting:
        kind = waiting.pop(0)
        for below in kind.__subclasses__():
            if below not in seen and below.__module__.startswith("towpath."):
                seen[below] = None
                waiting.append(below)
    public = (kind for kind in seen if not kind.__name__.startswith("_"))
    return iter(sorted(public, key=lambda kind: (kind.__module__ != "towpath.errors", kind.__name__)))
