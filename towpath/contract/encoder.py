"""Compiles, once per record class, the function that writes a record in Avro's binary form.

Pure. A record is walked by straight-line code made for its class, so that no field is looked up by name at run time;
that is why it costs less than a general library that is written in C (bench/codec.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from towpath.contract import values
from towpath.contract.binary import DEPTH_MAX, SHORT, varint
from towpath.contract.choice import choices, predicate
from towpath.contract.python_names import attributes
from towpath.contract.schema import (
    NULL,
    Array,
    AvroType,
    EnumSchema,
    FixedSchema,
    Map,
    Primitive,
    RecordSchema,
    Reference,
    Schemas,
    Union,
)
from towpath.contract.source import Source
from towpath.contract.structs import DOUBLE, SINGLE
from towpath.contract.values import Unfit, unfit

# Writes a record to the end of a buffer; the second number is how deep it lies inside others.
Encoder = Callable[[Any, bytearray, int], None]
_SHORT_MAX: Final = len(SHORT)
_RANGES: Final = {"int": "-0x80000000 <= {0} < 0x80000000", "long": "-(1 << 63) <= {0} < 1 << 63"}


def compile_encoders(schemas: Schemas, classes: Mapping[str, type[Any]]) -> dict[str, Encoder]:
    """Return the encoder of each record among `classes` (records and the enums that they hold), by full name."""
    compiler = _Compiler(schemas, classes)
    names = [name for name in classes if isinstance(schemas[name], RecordSchema)]
    for name in names:
        compiler.record(schemas.record(name))
    found = compiler.source.compiled()
    return {name: found[compiler.functions[name]] for name in names}


def _too_deep() -> None:
    raise Unfit(f"is nested deeper than {DEPTH_MAX} levels")


class _Compiler:
    """Writes the source of the encoders."""

    def __init__(self, schemas: Schemas, classes: Mapping[str, type[Any]]) -> None:
        self._schemas = schemas
        self._classes = classes
        self.source = Source()
        self.functions: dict[str, str] = {
            name: f"write{number}"
            for number, name in enumerate(name for name in classes if isinstance(schemas[name], RecordSchema))
        }

    def record(self, schema: RecordSchema) -> None:
        """Write the function of one record."""
        source = self.source
        known = source.name(self._classes[schema.name])
        names = attributes(schema)
        with source.block(f"def {self.functions[schema.name]}(r, w, d)"):
            with source.block(f"if r.__class__ is not {known}"):
                source.line(f"{source.name(unfit)}(r, {schema.name!r})")
            with source.block(f"if d > {DEPTH_MAX}"):
                source.line(f"{source.name(_too_deep)}()")
            for item in schema.fields:
                source.line(f"v = r.{names[item.name]}")
                self._value(item.type, "v")

    def _value(self, schema: AvroType, value: str, *, checked: bool = False) -> None:
        """Write the code for `value`, a variable that it may overwrite; `checked` says that its class is known."""
        match schema:
            case Primitive():
                self._primitive(schema, value, checked=checked)
            case Array(items=items):
                self._collection(value, tuple, "a tuple")
                with self.source.block(f"for {(each := self.source.variable())} in {value}"):
                    self._value(items, each)
                self.source.line("w.append(0)")
            case Map(values=inner):
                self._collection(value, dict, "a dict")
                key, each = self.source.variable(), self.source.variable()
                with self.source.block(f"for {key}, {each} in {value}.items()"):
                    self._text(key, checked=False)
                    self._value(inner, each)
                self.source.line("w.append(0)")
            case Union():
                self._union(schema, value)
            case Reference(name=name):
                self._named(name, value, checked=checked)

    def _collection(self, value: str, kind: type[Any], takes: str) -> None:
        source = self.source
        self._require(f"{value}.__class__ is {source.name(kind)}", value, takes)
        with source.block(f"if {value}"):
            source.line("n = len(" + value + ") << 1")
            self._number()

    def _require(self, fits: str, value: str, takes: str) -> None:
        with self.source.block(f"if not ({fits})"):
            self.source.line(f"{self.source.name(unfit)}({value}, {takes!r})")

    def _number(self) -> None:
        """Write `n`, which stands for a number already (see `binary.zigzag`)."""
        short, long = self.source.name(SHORT), self.source.name(varint)
        self.source.line(f"w += {short}[n] if n < {_SHORT_MAX} else {long}(n)")

    def _whole(self, value: str) -> None:
        self.source.line(f"n = {value} << 1 if {value} >= 0 else ~{value} << 1 | 1")
        self._number()

    def _text(self, value: str, *, checked: bool) -> None:
        if not checked:
            self._require(f"{value}.__class__ is {self.source.name(str)}", value, "a str")
        self.source.line(f"{value} = {value}.encode()")
        self._bytes(value)

    def _bytes(self, value: str) -> None:
        self.source.line(f"n = len({value}) << 1")
        self._number()
        self.source.line(f"w += {value}")

    def _primitive(self, schema: Primitive, value: str, *, checked: bool) -> None:
        source = self.source
        name = schema.name
        if schema.logical == "decimal":
            source.line(
                f"{value} = {source.name(values.decimal_bytes_of)}({value}, {schema.precision}, {schema.scale or 0})"
            )
            self._bytes(value)
            return
        to_raw = values.TO_RAW.get(schema.logical or "")
        if to_raw is not None:
            source.line(f"{value} = {source.name(to_raw)}({value})")
            self._text(value, checked=True) if name == "string" else self._whole(value)
            return
        match name:
            case "int" | "long":
                bits = 32 if name == "int" else 64
                fits = f"{value}.__class__ is {source.name(int)} and {_RANGES[name].format(value)}"
                self._require(fits, value, f"an int of {bits} bits")
                self._whole(value)
            case "boolean":
                self._require(f"{value}.__class__ is {source.name(bool)}", value, "a bool")
                source.line(f"w.append({value})")
            case "float":
                source.line(f"w += {source.name(SINGLE.pack)}({source.name(values.single_of)}({value}))")
            case "double":
                source.line(
                    f"w += {source.name(DOUBLE.pack)}({value} if {value}.__class__ is {source.name(float)} "
                    f"else {source.name(values.number_of)}({value}))"
                )
            case "bytes":
                self._require(f"{value}.__class__ is {source.name(bytes)}", value, "bytes")
                self._bytes(value)
            case "string":
                self._text(value, checked=checked)
            case _:
                self._require(f"{value} is None", value, "None")

    def _named(self, name: str, value: str, *, checked: bool) -> None:
        source = self.source
        match self._schemas[name]:
            case RecordSchema():
                source.line(f"{self.functions[name]}({value}, w, d + 1)")
            case EnumSchema(symbols=symbols):
                if not checked:
                    self._require(f"{value}.__class__ is {source.name(self._classes[name])}", value, name)
                # By its text: an enum hashes its members in Python code.
                written = {symbol: varint(n << 1) for n, symbol in enumerate(symbols)}
                source.line(f"w += {source.name(written)}[{value}._value_]")
            case FixedSchema() as fixed:
                self._fixed(fixed, value)

    def _fixed(self, schema: FixedSchema, value: str) -> None:
        source = self.source
        match schema.logical:
            case "decimal":
                numbers = f"{schema.precision}, {schema.scale or 0}, {schema.size}"
                source.line(f"w += {source.name(values.decimal_fixed_of)}({value}, {numbers})")
            case "uuid":
                source.line(f"w += {source.name(values.uuid_bytes_of)}({value})")
            case "duration":
                source.line(f"w += {source.name(values.duration_bytes_of)}({value})")
            case _:
                fits = f"{value}.__class__ is {source.name(bytes)} and len({value}) == {schema.size}"
                self._require(fits, value, f"{schema.size} bytes")
                source.line(f"w += {value}")

    def _union(self, schema: Union, value: str) -> None:
        source = self.source
        word = "if"
        only = len(schema.present) == 1
        for index, branch in choices(self._schemas, schema):
            last = only and branch != NULL
            test = f"{value} is None" if branch == NULL else self._takes(branch, value)
            # Where one branch is left, its own check says what it takes better than "another type" would.
            head = "else" if last and word == "elif" else f"{word} {'True' if last else test}"
            with source.block(head):
                source.line(f"w += {varint(index << 1)!r}" if index else "w.append(0)")
                if branch != NULL:
                    self._value(branch, value, checked=not last)
            word = "elif"
        if not only:
            with source.block("else"):
                source.line(f"{source.name(unfit)}({value}, 'another type')")

    def _takes(self, branch: AvroType, value: str) -> str:
        """Return the expression that says whether a branch of a union is meant."""
        known = self.source.name(predicate(self._schemas, branch, self._classes))
        match branch:
            case Reference(name=name) if name in self._classes:
                return f"{value}.__class__ is {self.source.name(self._classes[name])}"
            case Primitive(name="string", logical=None):
                return f"{value}.__class__ is {self.source.name(str)}"
            case _:
                return f"{known}({value})"
