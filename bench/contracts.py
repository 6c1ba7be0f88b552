"""What `towpath contracts test` takes for a large project: 100 topics, 500 records, three released versions each.

`python -m bench.contracts [--json] [--topics N]`. The project is written into a temporary folder: records of twelve
fields with nested records, enums, unions, lists and logical types, each version with a field more, a good example each.
Measured is the command as a build server runs it, a process of its own; by its processor time, since neighbours on the
machine take only the wall's.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Final

TOPICS: Final = 100
RECORDS_EACH: Final = 5
VERSIONS: Final = 3
# Processor time of the whole command, at 100 topics.
LIMIT_SECONDS: Final = 10.0
_SETTINGS: Final = (
    '[project]\nname = "large"\nrecords = "large_records"\nschemas = "schemas"\noutsiders = ["billing"]\n'
)
_TOPIC: Final = """\
topic: {service}.events
kind: events
owner: {service}
key: id
partitions: 4
retention_days: 30
values: [{values}]
producers: [{service}]
consumers: [billing]
"""


def record(service: str, number: int, version: int) -> dict[str, Any]:
    """Return one version of one record: each has a field more than the version before it."""
    space = f"large.{service}"
    line = {
        "type": "record",
        "name": f"Line{number}",
        "fields": [
            {"name": "sku", "type": "string"},
            {"name": "quantity", "type": "int", "default": 1},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        ],
    }
    states = {"type": "enum", "name": f"State{number}", "symbols": ["NEW", "PAID", "SENT"], "default": "NEW"}
    party = {"type": "record", "name": f"Party{number}", "fields": [{"name": "name", "type": "string"}]}
    added = [
        {"name": f"added_{later}", "type": ["null", "string"], "default": None, "doc": f"Since version {later}."}
        for later in range(2, version + 1)
    ]
    return {
        "type": "record",
        "name": f"Happened{number}",
        "namespace": space,
        "doc": f"Something of kind {number} happened in {service}.",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "state", "type": states, "default": "NEW"},
            {"name": "lines", "type": {"type": "array", "items": line}},
            {"name": "labels", "type": {"type": "map", "values": "string"}, "default": {}},
            {"name": "by", "type": ["null", party, "string"], "default": None},
            {"name": "total_cents", "type": "long"},
            {"name": "share", "type": "double", "default": 0},
            {"name": "is_test", "type": "boolean", "default": False},
            {"name": "reference", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": None},
            {"name": "note", "type": ["null", "string"], "default": None},
            *added,
        ],
    }


EXAMPLE: Final = {
    "id": "x-1",
    "at": "2026-03-14T09:26:53.589793Z",
    "day": "2026-03-14",
    "lines": [{"sku": "mug", "price": "12.50"}],
    "total_cents": 1250,
}


def write_project(folder: Path, topics: int) -> None:
    """Write a project of so many topics."""
    _write(folder / "towpath.toml", _SETTINGS)
    for topic in range(topics):
        service = f"service_{topic:03}"
        names = [f"Happened{number}" for number in range(RECORDS_EACH)]
        values = ", ".join(f"large.{service}.{name}" for name in names)
        _write(folder / f"schemas/topics/{service}.events.yaml", _TOPIC.format(service=service, values=values))
        for number, name in enumerate(names):
            avro = folder / "schemas/avro" / service
            _write(avro / f"{name}.avsc", json.dumps(record(service, number, VERSIONS), indent=2))
            for version in range(1, VERSIONS + 1):
                text = json.dumps(record(service, number, version), indent=2)
                _write(avro / "versions" / f"{name}.v{version}.avsc", text)
            _write(folder / f"schemas/examples/{service}/{name}/good/usual.json", json.dumps(EXAMPLE))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def run(folder: Path, *verb: str) -> tuple[float, float, str]:
    """Run a verb of `towpath contracts` there; return seconds of the wall, of the processor, and what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOWPATH_")}
    begun, before = perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", "from towpath.cli import main; main()", "contracts", *verb],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return perf_counter() - begun, processor, done.stdout


def measure(topics: int) -> dict[str, float | int]:
    """Return the figures, in seconds unless the name says otherwise."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, topics)
        _, generated, _ = run(folder, "generate")
        wall, processor, text = run(folder, "test", "--json")
    report = json.loads(text)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    return {
        "topics": report["topics"],
        "records": report["records"],
        "values": topics * RECORDS_EACH,
        "versions": report["versions"],
        "decodings": report["decodings"],
        "generate_cpu_seconds": round(generated, 2),
        "test_wall_seconds": round(wall, 2),
        "test_cpu_seconds": round(processor, 2),
        "peak_megabytes": peak,
        "limit_cpu_seconds": LIMIT_SECONDS,
    }


def main() -> None:
    """Measure and print; the exit code is 1 where the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--topics", type=int, default=TOPICS, help="how many topics, of five records each")
    arguments = parser.parse_args()
    figures = measure(arguments.topics)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:24} {value:>10}")
    sys.exit(figures["test_cpu_seconds"] > LIMIT_SECONDS)


if __name__ == "__main__":
    main()
