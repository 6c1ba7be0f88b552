"""Schemas made at random, what their next version might be, and record classes for both without a file."""

import itertools
import json
import sys
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, Final

from towpath.contract.codec import Codec, WriterSchema
from towpath.contract.defaults import default_problem
from towpath.contract.files import Contracts, LoadedSet, SchemaSet
from towpath.contract.generate import generate
from towpath.contract.parse import parse
from towpath.contract.schema import FixedSchema, Schemas

ROOT: Final = "test.Root"
PLAIN: Final = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
LOGICAL: Final[list[dict[str, Any]]] = [
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-micros"},
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
]
_SYMBOLS: Final = ["a", "b", "c", "d"]
_modules = itertools.count(1)


class Maker:
    """Makes one schema; each named type gets a name of its own."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self._names = itertools.count(1)

    def root(self) -> dict[str, Any]:
        """Return a record."""
        fields = [self.field(f"f{place}") for place in range(self.chance.randint(1, 5))]
        return {"type": "record", "name": "Root", "namespace": "test", "fields": fields}

    def field(self, name: str) -> dict[str, Any]:
        """Return a field, half of the time with a default."""
        schema = self.type(0)
        made = {"name": name, "type": schema}
        return {**made, "default": self.default(schema)} if self.chance.random() < 0.4 else made

    def type(self, depth: int) -> Any:  # noqa: PLR0911 - a case each
        """Return any type, more often a plain one the deeper it stands."""
        kinds = ["plain", "plain", "logical", "optional", "union", "array", "map", "enum", "fixed", "record", "itself"]
        kind = self.chance.choice(kinds[: 2 if depth > 2 else None])
        match kind:
            case "plain":
                return self.chance.choice(PLAIN)
            case "logical":
                return dict(self.chance.choice(LOGICAL))
            case "optional":
                inner = self.chance.choice([*PLAIN[1:], self.named(depth + 1)])
                return self.chance.choice([["null", inner], [inner, "null"]])
            case "union":
                plain = self.chance.sample(PLAIN, self.chance.randint(1, 3))
                return [*plain, *(self.named(depth + 1) for _ in range(self.chance.randint(0, 2)))]
            case "array":
                return {"type": "array", "items": self.type(depth + 1)}
            case "map":
                return {"type": "map", "values": self.type(depth + 1)}
            case "itself":
                return ["null", "test.Root"]
            case _:
                return self.named(depth, kind)

    def named(self, depth: int, kind: str | None = None) -> dict[str, Any]:
        """Return a new enum, fixed or record."""
        kind = kind or self.chance.choice(["enum", "fixed", "record"])
        name = f"{kind[0].upper()}{next(self._names)}"
        if kind == "enum":
            symbols = self.chance.sample(_SYMBOLS, self.chance.randint(1, 4))
            default = {"default": symbols[0]} if self.chance.random() < 0.4 else {}
            return {"type": "enum", "name": name, "symbols": symbols, **default}
        if kind == "fixed":
            decimal = {"logicalType": "decimal", "precision": 6, "scale": 1} if self.chance.random() < 0.3 else {}
            return {"type": "fixed", "name": name, "size": 4, **decimal}
        fields = [self.inner_field(f"g{place}", depth + 1) for place in range(self.chance.randint(0, 3))]
        return {"type": "record", "name": name, "fields": fields}

    def inner_field(self, name: str, depth: int) -> dict[str, Any]:
        """Return a field of a nested record."""
        schema = self.type(depth)
        made = {"name": name, "type": schema}
        return {**made, "default": self.default(schema)} if self.chance.random() < 0.4 else made

    def default(self, schema: Any) -> Any:  # noqa: PLR0911 - a case each
        """Return a default in Avro's JSON form; of the first branch of a union, which all libraries understand."""
        match schema:
            case list():
                return self.default(schema[0])
            case {"type": "array"}:
                return [self.default(schema["items"]) for _ in range(self.chance.randint(0, 2))]
            case {"type": "map"}:
                return {"k": self.default(schema["values"])} if self.chance.random() < 0.5 else {}
            case {"type": "enum"}:
                return self.chance.choice(schema["symbols"])
            case {"type": "fixed"}:
                return "\u0000\u0000\u0000\u0007"
            case {"type": "record"}:
                # What has a default may be left out; what has none must be there.
                return {
                    item["name"]: item.get("default", self.default(item["type"]))
                    for item in schema["fields"]
                    if "default" not in item or self.chance.random() < 0.5
                }
            case {"type": "string"}:
                return "12345678-1234-5678-1234-567812345678"
            case {"type": "bytes"}:
                return "\u0001\u0002"
            case {"type": str(name)}:
                return self.default(name)
            case _:
                return {
                    "null": None,
                    "boolean": True,
                    "int": 7,
                    "long": 8,
                    "float": 1,
                    "double": self.chance.choice([2, 0.25]),
                    "bytes": "\u00ff\u0000",
                    "string": "t",
                    "test.Root": None,
                }[schema]


def evolved(chance: Random, schema: dict[str, Any]) -> dict[str, Any]:
    """Return what the next version of a record might be: some changes are compatible, some are not."""
    maker = Maker(chance)
    maker._names = itertools.count(100)
    new: dict[str, Any] = json.loads(json.dumps(schema))
    fields = [_changed(chance, item) for item in new["fields"] if chance.random() < 0.9]
    if chance.random() < 0.3:
        fields.append(maker.field("added"))
    if chance.random() < 0.2:
        chance.shuffle(fields)
    if len(fields) > 1 and chance.random() < 0.1:  # two fields change places, by their aliases
        fields[0]["aliases"], fields[1]["aliases"] = [fields[1]["name"]], [fields[0]["name"]]
    return {**new, "fields": fields}


def _changed(chance: Random, item: dict[str, Any]) -> dict[str, Any]:
    kind = chance.choice(["keep", "keep", "keep", "type", "rename", "wrap", "default"])
    match kind:
        case "type":
            changed = _changed_type(chance, item["type"])
            kept = {key: value for key, value in item.items() if key not in {"default", "type"}}
            return {**kept, "type": changed}
        case "rename":
            return {**item, "name": f"{item['name']}_new", "aliases": [item["name"]]}
        case "wrap" if not isinstance(item["type"], list) and item["type"] != "null":
            return {"name": item["name"], "type": ["null", item["type"]], "default": None}
        case "default" if "default" in item:
            return {key: value for key, value in item.items() if key != "default"}
        case _:
            return item


def _changed_type(chance: Random, schema: Any) -> Any:  # noqa: PLR0911 - a case each
    match schema:
        case "int":
            return chance.choice(["long", "double", "float", "string"])
        case "long" | "float":
            return chance.choice(["double", "int"])
        case "string":
            return chance.choice(["bytes", "int", ["string", "null"]])
        case list() if len(schema) > 1:
            return chance.choice([schema[:-1], [*schema[1:], schema[0]], [schema[0]]])
        case {"type": "enum", "symbols": symbols}:
            return {**schema, "symbols": chance.choice([[*symbols, "e"], symbols[:1], list(reversed(symbols))])}
        case {"type": "fixed"}:
            return chance.choice([{**schema, "size": 5}, {**schema, "namespace": "elsewhere"}])
        case {"type": "record", "name": name}:
            renamed = {**schema, "name": f"{name}New"}
            fields = [_changed(chance, item) for item in schema["fields"]]
            return chance.choice(
                [
                    renamed,
                    {**renamed, "aliases": [name]},
                    {**schema, "namespace": "elsewhere"},
                    {**schema, "fields": fields},
                ]
            )
        case {"type": "array", "items": items}:
            return {**schema, "items": _changed_type(chance, items)}
        case {"type": "map", "values": values}:
            return {**schema, "values": _changed_type(chance, values)}
        case {"logicalType": "timestamp-millis"}:
            return {"type": "long", "logicalType": "timestamp-micros"}
        case {"logicalType": "decimal"}:
            return {**schema, "precision": schema["precision"] + 1}
        case _:
            return schema


def usable(avro: dict[str, Any]) -> Schemas | None:
    """Return the schemas of a record, or None where chance made something that Avro does not allow."""
    try:
        found = Schemas(parse(avro, source="random"))
        text = json.dumps(avro)
        assert '"type": []' not in text
    except (ValueError, AssertionError, Exception):
        return None
    for schema in found.records():
        for item in schema.fields:
            if item.has_default and default_problem(found, item.type, item.default):
                return None
    return found


def codec_of(schemas: Schemas, writers: tuple[WriterSchema, ...] = ()) -> Codec:
    """Return a codec whose classes were generated and run without a file."""
    name = f"random_records_{next(_modules)}"
    source = SchemaSet("random", Path("random"), name, Path(f"{name}.py"))
    loaded = LoadedSet(source, dict.fromkeys(schemas.by_name, ""), {})
    contracts = Contracts(schemas, (loaded,))
    (text,) = generate(contracts, loaded).values()
    module = sys.modules[name] = ModuleType(name)
    try:
        exec(compile(text, name, "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    names = contracts.class_names(name)
    classes = {
        full: getattr(module, names[full])
        for full, schema in schemas.by_name.items()
        if not isinstance(schema, FixedSchema)
    }
    return Codec(schemas, classes, {record.name: number for number, record in enumerate(schemas.records(), 1)}, writers)
