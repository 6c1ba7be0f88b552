"""Which dead letters concern one instance: commands of its steps, and inputs of its own that could not be applied."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.contract.catalogue import Catalogue
    from towpath.saga.definition import Definition
    from towpath.saga.state import SagaState


def letters_of(settings: Settings, saga: str, state: "SagaState") -> list[dict[str, Any]]:
    """Return the dead letters that wait and concern `state`: what each is about, and the command to look at it."""
    from towpath.contract.catalogue import Catalogue
    from towpath.deadletter.quarantine import Fate
    from towpath.deadletter.redrive import read_quarantine
    from towpath.project import load_sagas
    from towpath.stream.broker.dead_letter import original
    from towpath.stream.broker.kafka import KafkaBroker

    catalogue = Catalogue.load(settings)
    topics = sorted(set(_topics(catalogue, saga, load_sagas(settings).get(saga, {}))))
    found = []
    for dead in read_quarantine(KafkaBroker(settings.kafka, settings.stream), topics).letters():
        record = original(dead.record, dead.letter)
        own = record.header("saga_id")
        if dead.fate is not Fate.WAITING or own not in (state.saga_id, None):
            continue
        if own is None and record.key != state.key.encode():
            continue
        found.append(
            {
                "topic": dead.letter.topic,
                "place": dead.place,
                "type": (record.header("type") or "").rpartition(".")[2],
                "step": record.header("step"),
                "follows": dead.letter.behind,
                "cause": dead.letter.cause,
                "look": f"towpath dead show {dead.letter.topic} {dead.place}",
            }
        )
    return found


def _topics(catalogue: "Catalogue", saga: str, versions: "Mapping[int, Definition]") -> Iterator[str]:
    from towpath.contract.catalogue import TopicKind
    from towpath.orchestrator.core import participants_of

    read = {f"{service}.{TopicKind.COMMANDS}" for service in participants_of(versions)}
    read |= {topic.name for topic in catalogue.live() if saga in topic.consumers and topic.kind is not TopicKind.STATE}
    for name in read:
        dead = catalogue.dead_letter(name)
        if dead is not None:
            yield dead.name
