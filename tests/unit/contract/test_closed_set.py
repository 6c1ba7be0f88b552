"""Saga, topic and service are one closed set: what one changes alone is found, offline, with who must change."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from sagas.place_order import confirm_order, void_authorisation
from schemas.records.order import RejectOrder
from schemas.records.payment import (
    AuthorisationVoided,
    AuthorisePayment,
    PaymentAuthorised,
    PaymentDeclined,
    VoidAuthorisation,
)
from towpath.contract.catalogue import Catalogue
from towpath.contract.closed_set import closed_set_findings
from towpath.contract.parties import Parties
from towpath.participant import Service
from towpath.participant.service import Handling, handle
from towpath.parties import commands_of, load_parties, party_of_saga, party_of_service, party_of_view
from towpath.project import load_sagas, load_services, load_views
from towpath.saga.definition import Definition, StepDefinition
from towpath.settings import load_settings

SETTINGS = load_settings()
SAGAS = load_sagas(SETTINGS)
SERVICES = load_services(SETTINGS)
CATALOGUE = Catalogue.load(SETTINGS)
PAYMENT = SERVICES["payment"]


def found(
    sagas: Mapping[str, Mapping[int, Definition]] = SAGAS,
    service: Service = PAYMENT,
    catalogue: Catalogue = CATALOGUE,
) -> list[tuple[str, str]]:
    """Return the findings, as problem and fix."""
    services = {**SERVICES, service.name: service}
    known = [
        *(party_of_saga(name, versions.values(), catalogue) for name, versions in sagas.items()),
        *(party_of_service(one, sagas, catalogue) for one in services.values()),
        *(party_of_view(CATALOGUE, *versions.values()) for versions in load_views(SETTINGS).values()),
    ]
    return [
        (one.problem.replace("craftygoods.", ""), one.fix)
        for one in closed_set_findings(Parties.of(known, catalogue), catalogue)
    ]


def with_step(change: Callable[[StepDefinition], StepDefinition]) -> dict[str, dict[int, Definition]]:
    """Return the sagas, with the step that authorises payments changed."""
    definition = SAGAS["place_order"][1]
    steps = tuple(change(step) if step.key == "authorise_payment" else step for step in definition.steps)
    return {**SAGAS, "place_order": {1: replace(definition, steps=steps)}}


def with_handler(command: type, *handlings: Handling) -> Service:
    """Return the payment service, with the handlers of `command` replaced."""
    kept = [one for kind, one in PAYMENT.handlings.items() if kind is not command and one.of is not command]
    return Service("payment", handlers=[*kept, *handlings])


def test_the_reference_project_is_one_closed_set() -> None:
    """Services, sagas, views and topics say the same of each command and reply."""
    assert found() == []
    loaded = closed_set_findings(load_parties(SETTINGS, CATALOGUE), CATALOGUE)
    assert loaded == ()


def test_a_failure_that_the_saga_no_longer_declares_is_found_at_topic_and_service() -> None:
    """Deleting `fails=PaymentDeclined`: the topic still lists it, and the service still answers it."""
    outcomes: Mapping[type, bool] = {PaymentAuthorised: True}
    problems = dict(found(with_step(lambda step: replace(step, outcomes=outcomes))))
    assert problems == {
        "service payment may answer it with payment.PaymentDeclined, which step authorise_payment of saga place_order "
        "does not declare": "saga place_order: add it to fails= there; or service payment: take it out of fails= of "
        "the handler",
        "it lists payment.PaymentDeclined, which no step of saga place_order declares": "saga place_order: declare it "
        "in succeeds= or fails= of the step that it answers; or take it out of "
        "schemas/topics/place_order.replies.yaml",
    }


def test_an_undo_without_a_handler_is_found() -> None:
    """Removing the handler of an undo's command from a service: the saga would compensate in vain."""
    problems = [problem for problem, _ in found(service=with_handler(VoidAuthorisation))]
    assert problems == [
        (
            "the undo of step authorise_payment of saga place_order sends it to service payment, which has no handler "
            "for it"
        ),
        "it lists payment.VoidAuthorisation, for which service payment has no handler",
    ]


def _handle_authorise(**replies: object) -> Service:
    handler = PAYMENT.handlings[AuthorisePayment].handler
    undo = PAYMENT.handlings[VoidAuthorisation]
    return with_handler(AuthorisePayment, handle(AuthorisePayment, handler, **replies), undo)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sagas", "service", "words"),
    [
        (
            SAGAS,
            _handle_authorise(succeeds=PaymentAuthorised),
            (
                "step authorise_payment of saga place_order waits for payment.PaymentDeclined, which service payment "
                "never answers"
            ),
        ),
        (
            SAGAS,
            _handle_authorise(succeeds=(PaymentAuthorised, PaymentDeclined)),
            (
                "step authorise_payment of saga place_order takes payment.PaymentDeclined for a failure, and service "
                "payment answers it as a success"
            ),
        ),
        (
            with_step(lambda step: replace(step, outcomes={PaymentAuthorised: True, PaymentDeclined: True})),
            PAYMENT,
            (
                "step authorise_payment of saga place_order takes payment.PaymentDeclined for a success, and service "
                "payment answers it as a failure"
            ),
        ),
        (
            SAGAS,
            with_handler(
                VoidAuthorisation,
                handle(VoidAuthorisation, PAYMENT.handlings[VoidAuthorisation].handler, succeeds=AuthorisationVoided),
            ),
            "to service payment it is an ordinary command: an undo that overtakes what it undoes would be forgotten",
        ),
        (
            with_step(lambda step: replace(step, build=void_authorisation)),
            PAYMENT,
            "to service payment it is the undo of payment.AuthorisePayment",
        ),
        (
            with_step(lambda step: replace(step, build=confirm_order)),
            PAYMENT,
            "sends it to service payment, which has no handler for it",
        ),
        (
            SAGAS,
            Service(
                "payment",
                handlers=[
                    *PAYMENT.handlings.values(),
                    handle(RejectOrder, PAYMENT.handlings[AuthorisePayment].handler, succeeds=PaymentAuthorised),
                ],
            ),
            "service payment handles order.RejectOrder, which is not among its values",
        ),
    ],
)
def test_each_contradiction_is_found(
    sagas: Mapping[str, Mapping[int, Definition]], service: Service, words: str
) -> None:
    """A reply missing, or read the other way round; an undo that is none; a command at the wrong address."""
    problems = [problem for problem, _ in found(sagas, service)]
    assert any(words in problem for problem in problems), problems


def test_a_record_folded_by_a_view_and_listed_nowhere_is_found() -> None:
    """The view would wait for it in vain."""
    topic = CATALOGUE.topic("order.events")
    values = tuple(value for value in topic.values if not value.endswith("OrderRejected"))
    catalogue = Catalogue({**CATALOGUE.topics, topic.name: replace(topic, values=values, consumers=("place_order",))})
    problems = [problem for problem, _ in found(catalogue=catalogue)]
    assert "view order_status folds order.OrderRejected, which is not among its values" in problems
    assert "view order_status reads it, and is not among its consumers" in problems


def test_a_topic_that_forgets_before_the_saga_ends_is_found() -> None:
    """A saga of 4 days whose replies are kept for 3 may never learn what became of a command."""
    topic = CATALOGUE.topic("place_order.replies")
    catalogue = Catalogue({**CATALOGUE.topics, topic.name: replace(topic, retention_days=3)})
    assert found(catalogue=catalogue) == [
        (
            "it keeps records for 3 days, and saga place_order may run for 4",
            "raise retention_days in schemas/topics/place_order.replies.yaml to 4 or more",
        )
    ]


def test_the_command_of_a_builder_is_read_from_its_annotation() -> None:
    """One that is not annotated is left alone: the proof runs it."""
    build = SAGAS["place_order"][1].step("authorise_payment").build
    assert commands_of(build) == ("craftygoods.payment.AuthorisePayment",)
    assert commands_of(lambda order: order) == ()
