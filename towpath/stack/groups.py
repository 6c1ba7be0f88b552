"""The consumer groups of the project's workers: who is a member, how much they have yet to read, what is held."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from towpath.errors import ConfigurationError, NotFoundError, WorldError
from towpath.orchestrator.agent import application_name as of_saga
from towpath.orchestrator.sagas_view import own_views
from towpath.outbox.names import VIEWS_DATABASE
from towpath.participant.agent import application_name as of_service
from towpath.positions.decision import Standing
from towpath.positions.group import group_standings
from towpath.positions.postgres import database_standings
from towpath.project import SAGAS_VIEW_WORKER, load_sagas, load_services, view_workers
from towpath.settings import Settings
from towpath.stream.broker.port import Broker, BrokerAway, GroupMember
from towpath.stream.broker.record import TopicPartition
from towpath.view.agent import application_name as of_view


@dataclass(frozen=True, slots=True)
class Application:
    """A worker's consumer group; `database` keeps its positions, None where the group itself does."""

    name: str
    worker: str
    database: str | None = None


@dataclass(frozen=True, slots=True)
class GroupReport:
    """How a group stands: who its members are, and where it stands in each partition that it has read.

    `away` says why that cannot be told, None where it can: the database that keeps its positions does not answer, or
    keeps them in another schema.
    """

    application: Application
    members: tuple[GroupMember, ...]
    standings: tuple[Standing, ...] = ()
    away: WorldError | ConfigurationError | None = None

    @property
    def lag(self) -> int:
        """Return how many offsets its members have yet to read."""
        return sum(one.lag or 0 for one in self.standings)

    @property
    def held(self) -> tuple[Standing, ...]:
        """Return the positions that their logs do not have."""
        return tuple(one for one in self.standings if one.held is not None)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "group": self.application.name,
            "worker": self.application.worker,
            "members": [member._asdict() for member in self.members],
            "lag": self.lag,
            "held": [one.to_json() for one in self.held],
        }


def applications(settings: Settings) -> dict[str, Application]:
    """Return the consumer groups of this project's workers, by name."""
    found = [Application(of_service(settings, name), f"service:{name}", name) for name in load_services(settings)]
    sagas = load_sagas(settings)
    found += [Application(of_saga(settings, name), f"saga:{name}") for name in sagas]
    workers = view_workers(settings).items()
    found += [Application(of_view(settings, view), worker, VIEWS_DATABASE) for worker, view in workers]
    found += [Application(of_view(settings, own), SAGAS_VIEW_WORKER, VIEWS_DATABASE) for own in own_views(sagas)]
    return {application.name: application for application in found}


def standings(
    settings: Settings, broker: Broker, application: Application, places: Iterable[TopicPartition] | None = None
) -> list[Standing]:
    """Return where an application stands, in all that it has read or in `places`.

    Raises WorldError, ConfigurationError where its positions lie in another schema than a worker looks in.
    """
    if application.database is None:
        read = broker.group_offsets(application.name) if places is None else places
        return group_standings(broker, application.name, read)
    url = settings.postgres.database_url(application.database)
    try:
        found = database_standings(broker, application.name, url, settings.postgres.connection_options())
    except NotFoundError:
        return []
    wanted = None if places is None else set(places)
    return [one for one in found if wanted is None or one.partition in wanted]


def group_reports(settings: Settings, broker: Broker) -> Iterator[GroupReport]:
    """Yield how each group of the project stands; one whose database is away hides no other. Raises BrokerAway."""
    for application in applications(settings).values():
        members = broker.group_members(application.name)
        try:
            yield GroupReport(application, members, tuple(standings(settings, broker, application)))
        except BrokerAway:
            raise
        except (WorldError, ConfigurationError) as error:
            yield GroupReport(application, members, away=error)
