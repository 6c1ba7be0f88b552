"""How many decisions a second the saga machine makes on one core: `python -m bench.advance [--json]`.

Random walks of `place_order` through a simulated world (answers, failures, repetitions, early timers, cancellations)
are recorded first, then decided again under the clock, so that only `advance` is measured. At most one input in ten of
a walk is one that the machine refuses. The clock is that of the processor, so that neighbours on a busy machine do not
count; the best of several rounds does: the others tell how noisy the machine is.
"""

import argparse
import gc
import json
import random
import statistics
import time
from datetime import UTC, datetime

from sagas.place_order import saga
from schemas.records.order import OrderLine, OrderPlaced
from towpath.saga.advance import Decision, advance
from towpath.saga.effects import Happened, Record
from towpath.saga.inputs import Input
from towpath.saga.testing.world import World

WALKS = 1_500
ROUNDS = 7
ADVERSE_SHARE = 0.05
REFUSED_SHARE_MAX = 0.10

LINES = (
    OrderLine(sku="mug", quantity=2, unit_price_cents=1_250),
    OrderLine(sku="kiln", quantity=1, unit_price_cents=90_000),
)


def order(number: int) -> OrderPlaced:
    """Return an order; every fourth is above the approval limit."""
    total = 92_500 if number % 4 else 192_500
    return OrderPlaced(
        order_id=f"order-{number}",
        customer_id=f"customer-{number % 97}",
        lines=LINES,
        total_cents=total,
        currency="EUR",
        card_token="token",
        placed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def walk(number: int, dice: random.Random) -> list[Input]:
    """Return the inputs of one random walk, from the start event to the saga's ending."""
    world = World(saga.definition, event=order(number))
    while world.state is not None and not world.state.ended:
        moves = world.moves()
        adverse = dice.random() < ADVERSE_SHARE
        chosen = [move for move in moves if move.adverse is adverse] or moves
        dice.choice(chosen).happen()
    return [input_ for input_, _ in world.log]


def is_refused(decision: Decision) -> bool:
    """Say whether the machine refused an input."""
    entry = decision.effects[0]
    return isinstance(entry, Record) and entry.happened is Happened.REFUSED


def thinned(walks: list[list[Input]]) -> tuple[list[list[Input]], float]:
    """Return the walks with at most one refused input in ten, and the share of them that is left.

    A refused input changes nothing, so a walk stays the same walk without it.
    """
    kept: list[list[Input]] = []
    decided = refusals = 0
    for inputs in walks:
        state = None
        kept.append([])
        for input_ in inputs:
            decision = advance(saga.definition, state, input_)
            state = decision.state
            refused = is_refused(decision)
            if refused and refusals + 1 > REFUSED_SHARE_MAX * (decided + 1):
                continue
            kept[-1].append(input_)
            decided += 1
            refusals += refused
    return kept, refusals / decided


def decide(walks: list[list[Input]]) -> float:
    """Decide every input of every walk; return the seconds of processor time that it took."""
    definition = saga.definition
    begun = time.process_time()
    for inputs in walks:
        state = None
        for input_ in inputs:
            state = advance(definition, state, input_).state
    return time.process_time() - begun


def measure(seed: int) -> dict[str, float | int]:
    """Return the figures of one run."""
    dice = random.Random(seed)
    walks, share = thinned([walk(number, dice) for number in range(WALKS)])
    inputs = sum(map(len, walks))
    gc.collect()
    gc.freeze()
    rates = [inputs / decide(walks) for _ in range(ROUNDS)]
    return {
        "decisions_per_second": round(max(rates)),
        "median_decisions_per_second": round(statistics.median(rates)),
        "decisions": inputs,
        "refused_share": round(share, 4),
        "seed": seed,
    }


def main() -> None:
    """Measure, and print for a person or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    figures = measure(arguments.seed)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"seed {figures['seed']}: {figures['decisions']} decisions, {figures['refused_share']:.1%} of them refusals")
    print(
        f"{figures['decisions_per_second']:,} decisions a second on one core (median of {ROUNDS} rounds: "
        f"{figures['median_decisions_per_second']:,})"
    )


if __name__ == "__main__":
    main()
