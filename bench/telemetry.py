"""What metrics and tracing cost: `python -m bench.telemetry [--json] [--sagas N] [--rounds N] [--stream]`.

The processor's time of an orchestrator (`bench.orchestrator`: everything but the broker) in four forms, one after the
other in each round, in an order that turns round: nothing counted, metrics, metrics with spans that nobody wants (a
flag, read once a unit), metrics with each span recorded and written as OTLP. With `--stream`, also the worker of
`bench.stream` that copies in batches, on a real broker: without its counters, with them, and with somebody who scrapes
each second.
A form is told by the median of its ratios to the first form of the same round, and by the ratio of the shortest
measurements of both, which is what a busy machine disturbs least; the forms without spans also taking turns unit by
unit, which tells a percent apart.
"""

import argparse
import gc
import json
import random
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
from confluent_kafka import TopicPartition
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from bench.orchestrator import UNIT_RECORDS, Worker, recorded
from bench.stream import PARTITIONS, START_SECONDS_MAX, Bench, Contender, end
from sagas.place_order import saga
from towpath import tracing
from towpath.contract.codec import Codec
from towpath.contract.files import schema_sets
from towpath.orchestrator.saga_metrics import Tally
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord
from towpath.stream.engine.record_spans import handling

SCRAPE_PORT = 29_464


class Encoded(SpanExporter):
    """Writes spans as OTLP, as the exporter does, and sends them nowhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write them."""
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


@dataclass
class Form:
    """One form of a worker. All are of one class, as the code that Python specialises for a class is all of theirs."""

    worker: Worker
    tally: Tally | None
    asks: bool

    def seconds(self, unit: list[ConsumedRecord]) -> float:
        """Handle one unit as a worker's agent does; return the processor's seconds."""
        began = time.process_time()
        with_spans = self.asks and tracing.is_on()
        handle, worker = self.worker.core.handle, self.worker
        for record in unit:
            if with_spans:
                with handling(record, saga.name):
                    handle(record, worker)
            else:
                handle(record, worker)
        worker.settle()
        tell = None if self.tally is None else self.tally.take()
        if tell is not None:
            tell()
        return time.process_time() - began


def form_of(codec: Codec, *, counts: bool, asks: bool) -> Form:
    """Return a fresh worker: one that counts after each unit or not, and that asks in each whether spans are wanted."""
    tally = Tally(saga.name) if counts else None
    return Form(Worker(codec, observe=None if tally is None else tally.note), tally, asks)


def handled(form: Form, inputs: list[ConsumedRecord]) -> float:
    """Return the processor's seconds of a form for all of `inputs`."""
    return sum(form.seconds(unit) for unit in units_of(inputs))


def units_of(inputs: list[ConsumedRecord]) -> list[list[ConsumedRecord]]:
    """Return records in units of work."""
    return [inputs[begin : begin + UNIT_RECORDS] for begin in range(0, len(inputs), UNIT_RECORDS)]


def traced(codec: Codec, inputs: list[ConsumedRecord]) -> float:
    """Return the seconds of one whose spans are recorded and written; those of the thread that writes are in it."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Encoded(), max_queue_size=1_000_000, schedule_delay_millis=100))
    tracing.use(provider)
    began = time.process_time()
    try:
        handled(form_of(codec, counts=True, asks=True), inputs)
        provider.shutdown()  # writes what is left
        return time.process_time() - began
    finally:
        tracing.use(None)


WITHOUT_SPANS: dict[str, Callable[[Codec], Form]] = {
    "nothing counted": partial(form_of, counts=False, asks=False),
    "metrics": partial(form_of, counts=True, asks=False),
    "metrics, tracing off": partial(form_of, counts=True, asks=True),
}
WITH_SPANS = "metrics, tracing on"


def measured(name: str, codec: Codec, inputs: list[ConsumedRecord]) -> float:
    """Return the seconds of the form of that name."""
    return traced(codec, inputs) if name == WITH_SPANS else handled(WITHOUT_SPANS[name](codec), inputs)


def in_turn(forms: Iterable[str], rounds: int, seconds_of: Callable[[str], float]) -> dict[str, Any]:
    """Measure each form in each round, every second round backwards; return medians, and ratios to the first form."""
    names = list(forms)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            gc.collect()  # what the form before has left behind is none of this one's cost
            found[name].append(seconds_of(name))
    first = found[names[0]]
    return {
        name: {
            "seconds": round(statistics.median(times), 3),
            "ratio": round(statistics.median(one / base for one, base in zip(times, first, strict=True)), 3),
            "ratio_of_shortest": round(min(times) / min(first), 3),
            "ratios": [round(one / base, 3) for one, base in zip(times, first, strict=True)],
        }
        for name, times in found.items()
    }


def orchestrator(sagas: int, rounds: int) -> dict[str, Any]:
    """Return what the forms of an orchestrator cost."""
    codec = Codec.offline(schema_sets(load_settings()))
    inputs = recorded(codec, sagas)
    names = [*WITHOUT_SPANS, WITH_SPANS]
    for name in names:
        measured(name, codec, inputs[: len(inputs) // 10])  # what is compiled or cached at first use is not measured
    gc.collect()
    gc.freeze()  # a worker does not hold all that it will ever read, for the collector to walk over
    return in_turn(names, rounds, lambda name: measured(name, codec, inputs))


def side_by_side(sagas: int, rounds: int) -> dict[str, Any]:
    """Return what the forms without spans cost, three workers taking turns unit by unit on the same records.

    So nothing that comes and goes on the machine meets one alone. The collector of garbage, which would walk over the
    states of all three, rests meanwhile.
    """
    codec = Codec.offline(schema_sets(load_settings()))
    inputs = recorded(codec, sagas)
    dice, names = random.Random(sagas), list(WITHOUT_SPANS)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            forms = {name: make(codec) for name, make in WITHOUT_SPANS.items()}
            seconds = dict.fromkeys(names, 0.0)
            for unit in units_of(inputs):
                for name in dice.sample(names, len(names)):
                    seconds[name] += forms[name].seconds(unit)
            for name in names:
                ratios[name].append(seconds[name] / seconds[names[0]])
    finally:
        gc.enable()
    return {
        name: {"ratio": round(statistics.median(found), 3), "ratios": [round(one, 3) for one in found]}
        for name, found in ratios.items()
    }


# --- The worker of bench.stream, on a real broker ---------------------------------------------------------------------

STREAM_FORMS: dict[str, dict[str, Any]] = {
    "nothing counted": {"without_metrics": True},
    "metrics": {},
    "metrics, scraped each second": {"metrics_port": SCRAPE_PORT},
}


def stream(events: int, rounds: int) -> dict[str, Any]:
    """Return what the forms of a copying worker cost."""
    bench = Bench(load_settings().kafka.bootstrap_servers, events)
    return in_turn(STREAM_FORMS, rounds, lambda name: copied(bench, STREAM_FORMS[name]))


def copied(bench: Bench, told: dict[str, Any]) -> float:
    """Return the processor's seconds of a worker from its first output to its last."""
    process, out = bench.start(Contender("ours, in batches", "ours", {"mode": "batches", **told}), bench.input)
    stop = threading.Event()
    scraper = threading.Thread(target=_scrape, args=(stop,))
    if "metrics_port" in told:
        scraper.start()
    try:
        look, worker = bench.reader(out), psutil.Process(process.pid)
        places = [TopicPartition(out, number) for number in range(PARTITIONS)]
        deadline = time.monotonic() + START_SECONDS_MAX + bench.events / 2_000
        begun: float | None = None
        while (written := sum(look.get_watermark_offsets(place, timeout=10)[1] for place in places)) < bench.events:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it did not finish; log in {bench.folder}")
            if written and begun is None:
                begun = sum(worker.cpu_times()[:2])
            time.sleep(0.02)
        look.close()
        return sum(worker.cpu_times()[:2]) - (begun or 0.0)
    finally:
        stop.set()
        if scraper.ident is not None:
            scraper.join()
        end(process)


def _scrape(stop: threading.Event) -> None:
    while not stop.wait(1.0):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{SCRAPE_PORT}/metrics", timeout=5) as answer:
            answer.read()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--sagas", type=int, default=1_000, help="whole sagas in each measurement")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--stream", action="store_true", help="also the worker of bench.stream; needs a running stack")
    parser.add_argument("--events", type=int, default=400_000, help="records in each measurement of that worker")
    options = parser.parse_args()
    found = {
        "orchestrator": orchestrator(options.sagas, options.rounds),
        "orchestrator, unit by unit": side_by_side(options.sagas, options.rounds),
    }
    if options.stream:
        found["stream"] = stream(options.events, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    for what, forms in found.items():
        print(what)
        for name, figures in forms.items():
            more = f"  {figures['ratio_of_shortest']:6.3f}  {figures['seconds']:8.3f} s" if "seconds" in figures else ""
            print(f"  {name:30} {figures['ratio']:6.3f}{more}")


if __name__ == "__main__":
    main()
