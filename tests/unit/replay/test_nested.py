"""What of a saga's own topics is a record that a release must read."""

from sagas.place_order import saga as place_order
from tests.unit.orchestrator.desktop import CODEC, desktop, order_placed
from towpath.cli.replay_planning import problem_of
from towpath.stream.broker.record import ConsumedRecord


def test_a_state_that_a_healthy_saga_wrote_has_nothing_that_cannot_be_decoded() -> None:
    """Marks, ids and clocks lie beside the instances in forms of their own, and are no records."""
    desk = desktop(place_order)
    desk.give("order.events", order_placed())
    state = "place_order.state"
    kept = [ConsumedRecord(state, 0, at, 0, key, value, ()) for at, (key, value) in enumerate(desk.stored().items())]
    assert {(record.key or b"")[:1] for record in kept} > {b"i"}
    assert [problem_of(CODEC, record) for record in kept] == [None] * len(kept)
    cut = ConsumedRecord(state, 0, 99, 0, b"i-1", b"no record", ())
    assert problem_of(CODEC, cut) is not None
