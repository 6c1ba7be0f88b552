"""Verbs of `dead`: what could not be applied, why, and sending it back or giving it up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from towpath.cli import dead_choice, dead_report, output
from towpath.cli.deciding import user_name
from towpath.errors import NotFoundError, PartlyDoneError, RefusedError, WorldError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.deadletter.quarantine import Cohort, Quarantine
    from towpath.deadletter.redrive import Outcome, Redrive
    from towpath.deadletter.redrive_plan import RedriveStep

group = typer.Typer(name="dead", help="Dead letters: look at them, send them back, give them up.", no_args_is_help=True)

SHOWN_MAX = 20
"""Letters that `show --fingerprint` prints: they are alike."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TopicName = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, or its dead-letter topic.")]
Position = Annotated[
    str | None,
    typer.Argument(
        metavar="POSITION",
        help="PARTITION:OFFSET in the dead-letter topic, or where the record died, as in logs: order.events[2]@7.",
    ),
]
Fingerprint = Annotated[str | None, typer.Option("--fingerprint", help="All that died of this cause.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who does it; by default the user of this machine.")]
Wait = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds without progress to wait for the workers to read what was sent.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    group.command("list")(list_letters)
    group.command()(show)
    group.command()(redrive)
    group.command()(drop)
    group.command()(release)
    app.add_typer(group)


def list_letters(
    topic: Annotated[str | None, typer.Argument(help="Only this topic's.")] = None,
    settled: Annotated[bool, typer.Option("--all", help="Also what was redriven or dropped.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters by cause, the newest last, with how many records are parked behind them."""
    from towpath.deadletter.quarantine import groups_of

    session = _Session(load_settings())
    wanted = session.dead_topics if topic is None else (session.dead_topic(topic),)
    quarantine = session.read()
    dead_report.show_groups(groups_of(quarantine, wanted, settled=settled), as_json=as_json, settled=settled)
    strangers = [record.position for record in quarantine.strangers if record.topic in wanted]
    if strangers:
        output.note(f"{len(strangers)} further records say nothing of a death, {strangers[-1]} for one")


def show(topic: TopicName, position: Position = None, fingerprint: Fingerprint = None, as_json: AsJson = False) -> None:
    """Show dead letters whole: headers, value, where they came from, what waits behind them, what to run next."""
    session = _Session(load_settings())
    name = session.dead_topic(topic)
    quarantine = session.read()
    chosen = dead_choice.choose(quarantine, name, position, fingerprint, everything=False)
    if fingerprint is not None:
        chosen = [dead for dead in chosen if dead.letter.behind is None] or chosen
    if len(chosen) > SHOWN_MAX:
        output.note(f"the last {SHOWN_MAX} of {len(chosen)}")
    dead_report.show_letters(session.settings, session.catalogue, quarantine, chosen[-SHOWN_MAX:], as_json=as_json)


def redrive(
    topic: TopicName,
    position: Position = None,
    fingerprint: Fingerprint = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that waits in this topic.")] = False,
    reason: Annotated[str, typer.Option(help="Why it will go well now; kept in the log.")] = "",
    actor: Actor = None,
    wait_seconds: Wait = 30.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their topic, each with what is parked behind it, in the order of its key.

    Each goes back once, however often this runs. Exit code 4 where something is left, or died again.
    """
    from towpath.deadletter.redrive_plan import redrive_plan

    session = _Session(load_settings())
    name = session.dead_topic(topic)

    def plan(quarantine: "Quarantine") -> "list[RedriveStep]":
        chosen = dead_choice.choose(quarantine, name, position, fingerprint, everything=everything)
        if position is not None:
            dead_choice.refuse_out_of_turn(quarantine, chosen)
            dead_choice.refuse_half_released(quarantine, chosen)
        return redrive_plan(quarantine, chosen)

    question = f"Redrive everything that waits in {name}?" if everything else None
    _settle(session, plan, question, actor, reason, wait_seconds, dry_run=dry_run, yes=yes, as_json=as_json)


def drop(
    topic: TopicName,
    reason: Annotated[str, typer.Option(help="Why it shall never be applied; kept in the log.")],
    position: Position = None,
    fingerprint: Fingerprint = None,
    followers: Annotated[
        bool, typer.Option("--with-parked", help="Drop what is parked behind it, too, instead of redriving that.")
    ] = False,
    actor: Actor = None,
    wait_seconds: Wait = 30.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give dead letters up: they are never applied, and what is parked behind them goes on.

    The letter itself stays in its topic as long as that keeps it, and beside it who gave it up, when and why.
    """
    from towpath.deadletter.redrive_plan import drop_plan

    session = _Session(load_settings())
    name = session.dead_topic(topic)

    def plan(quarantine: "Quarantine") -> "list[RedriveStep]":
        chosen = dead_choice.choose(quarantine, name, position, fingerprint, everything=False)
        if fingerprint is not None:
            chosen = [dead for dead in chosen if dead.letter.behind is None]
        else:
            dead_choice.refuse_half_released(quarantine, chosen)
        return drop_plan(quarantine, chosen, followers=followers)

    question = f"Drop all dead letters of {name} with the fingerprint {fingerprint}?" if fingerprint else None
    _settle(session, plan, question, actor, reason, wait_seconds, dry_run=dry_run, yes=yes, as_json=as_json)


def release(
    topic: TopicName,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The records' key, as `show` prints it.")],
    reason: Annotated[str, typer.Option(help="Why what is gone need not be applied; kept in the log.")],
    application: Annotated[str | None, typer.Option("--application", help="Where the key waits.")] = None,
    followers: Annotated[
        bool, typer.Option("--with-parked", help="Drop what is still there, too, instead of redriving that.")
    ] = False,
    actor: Actor = None,
    wait_seconds: Wait = 30.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let a key go on that waits for dead letters which are no longer there: retention took them.

    What is still there of the key is counted anew and redriven in its order. Without a running worker it ends early,
    with exit code 4; running it again does the rest.
    """
    from towpath.deadletter.quarantine import Fate
    from towpath.deadletter.redrive_plan import released_steps

    session = _Session(load_settings())
    name = session.dead_topic(topic)
    cohort = dead_choice.parked(session.read(), name, key, application)
    session.refuse_what_may_come(cohort)
    if dry_run:
        steps = released_steps(cohort, followers=followers)
        dead_report.show_steps(steps, as_json=as_json)
        dead_report.note_unanswered(step.dead for step in steps if step.fate is Fate.DROPPED)
        return
    with session.redriving(actor or user_name(), reason) as run:
        cohort = dead_choice.parked(run.start(), name, key, application)
        outcome = run.release(cohort.key, followers=followers, wait_seconds=wait_seconds)
    dead_report.show_outcome(outcome, as_json=as_json)
    dead_report.note_unanswered(outcome.dropped)
    _tell_what_is_left(outcome)


class _Session:
    """The catalogue, the broker, and the dead-letter topics."""

    def __init__(self, settings: Settings) -> None:
        from towpath.contract.catalogue import Catalogue
        from towpath.stream.broker.kafka import KafkaBroker

        self.settings = settings
        self.catalogue = Catalogue.load(settings)
        self.broker = KafkaBroker(settings.kafka, settings.stream)
        self.dead_topics = self.catalogue.dead_topics()

    def dead_topic(self, name: str) -> str:
        """Return the dead-letter topic that a person means. Raises NotFoundError."""
        from towpath.contract.parse import misspelt

        if name in self.dead_topics:
            return name
        if name not in self.catalogue.topics:
            raise NotFoundError(
                f"topic {name!r} is not in the catalogue{misspelt(name, self.catalogue.topics)}",
                next_step="towpath dead list shows all there is",
            )
        topic = self.catalogue.topic(name)
        dead = self.catalogue.dead_letter(topic.name)
        if dead is None:
            raise NotFoundError(
                f"{name} has no dead-letter topic: nothing that reads it dead-letters",
                next_step="towpath dead list shows all there is",
            )
        return dead.name

    def read(self) -> "Quarantine":
        """Return what lies in all of them: what waits for one may lie in another."""
        from towpath.deadletter.redrive import read_quarantine

        try:
            return read_quarantine(self.broker, self.dead_topics)
        except WorldError as error:
            raise WorldError(
                error.cause, kept=error.kept or "everything", next_step=error.next_step or "towpath status"
            ) from error

    def refuse_what_may_come(self, cohort: "Cohort") -> None:
        """Raise RefusedError where what a key waits for cannot have been removed: then it is on its way."""
        from towpath.stream.broker.record import TopicPartition

        for position in cohort.unseen:
            where = dead_choice.POSITION.fullmatch(position)
            if where is None or f"{where['topic']}.dead" not in self.dead_topics:
                continue
            place = TopicPartition(f"{where['topic']}.dead", int(where["partition"]))
            if self.broker.begin_offsets([place])[place] == 0:
                raise RefusedError(
                    f"{position} cannot have outlived its time: {place} has every dead letter that it ever had",
                    kept="everything",
                    next_step=f"{dead_choice.ON_ITS_WAY}; then redrive it",
                )

    @contextmanager
    def redriving(self, actor: str, reason: str) -> "Iterator[Redrive]":
        """Yield a run, closed at the end."""
        from towpath.clock import SystemClock
        from towpath.deadletter.redrive import Redrive

        run = Redrive(
            self.broker,
            SystemClock(),
            transactional_id=f"{self.settings.project.name}-dead",
            dead_topics=self.dead_topics,
            actor=actor,
            reason=reason,
        )
        try:
            yield run
        finally:
            run.close()


def _settle(
    session: _Session,
    plan: "Callable[[Quarantine], list[RedriveStep]]",
    question: str | None,
    actor: str | None,
    reason: str,
    wait_seconds: float,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from towpath.deadletter.quarantine import Fate

    if dry_run:
        quarantine = session.read()
        steps = [step for request in plan(quarantine) for step in request.steps(quarantine)]
        dead_report.show_steps(steps, as_json=as_json)
        dead_report.note_unanswered(step.dead for step in steps if step.fate is Fate.DROPPED)
        return
    plan(session.read())  # a person's mistake is told before another run would be shut out, and before the question
    if question is not None:
        output.ask(question, yes=yes)
    with session.redriving(actor or user_name(), reason) as run:
        requests = plan(run.start())
        outcome = run.run(requests, wait_seconds=wait_seconds)
    dead_report.show_outcome(outcome, as_json=as_json)
    dead_report.note_unanswered(outcome.dropped)
    _tell_what_is_left(outcome)


def _tell_what_is_left(outcome: "Outcome") -> None:
    if outcome.unread:
        output.note(f"not read yet by {', '.join(outcome.unread)}: towpath status shows whether its worker runs")
    left, again = len(outcome.left), len(outcome.died_again)
    if not left and not again:
        return
    first = (*outcome.died_again, *outcome.left)[0]
    raise PartlyDoneError(
        f"{len(outcome.redriven)} redriven, {len(outcome.dropped)} dropped, {left} left, {again} died again or wait "
        "behind what did",
        kept="what is left, where it was",
        next_step=f"towpath dead show {first.letter.topic} {first.place}"
        if again
        else "run the same again once the workers have read what was sent",
    )
