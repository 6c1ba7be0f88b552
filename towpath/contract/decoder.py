"""Compiles, once per writer's schema, the function that reads what it wrote into the record class of today.

Pure. The bytes may come from anyone, so the code that is made here is bounded by itself: it takes time and memory in
proportion to the bytes that are there, `binary` holds the limits where those say nothing, and it raises nothing but
ValueError (Malformed and UnicodeDecodeError among them), IndexError, OverflowError and struct.error. A text or bytes
that claim to be longer than the message come out too short; `Codec.decode` refuses the whole for where it ended.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from towpath.contract.binary import (
    DEPTH_MAX,
    ITEMS_WITHOUT_BYTES_MAX,
    count_at,
    int_at,
    long_at,
    malformed,
    size_at,
)
from towpath.contract.defaults import default_value
from towpath.contract.logical import Conversion, conversion_of
from towpath.contract.python_names import attributes
from towpath.contract.record import Record
from towpath.contract.resolution import FieldMatch, Resolution
from towpath.contract.schema import (
    Array,
    AvroType,
    EnumSchema,
    FixedSchema,
    Map,
    NamedSchema,
    Primitive,
    RecordSchema,
    Reference,
    Schemas,
    Union,
    has_map,
)
from towpath.contract.source import Source
from towpath.contract.structs import DOUBLE, SINGLE

# Takes a message and the place where the body begins; returns the record and the place where it ended.
Decoder = Callable[[bytes, int], tuple[Record, int]]
_SINGLE_READ: Final = SINGLE.unpack_from
_DOUBLE_READ: Final = DOUBLE.unpack_from
# Loops inside each other in one function; Python itself allows 20 blocks.
_LOOPS_MAX: Final = 2


def compile_decoder(root: str, resolution: Resolution, classes: Mapping[str, type[Any]], *, written: str) -> Decoder:
    """Return the function that reads what was written as `written` into the class of the record called `root`.

    What the reader cannot take is refused where it occurs in the data, as the specification says; whether it can
    occur at all, `compatibility` judges.
    """
    compiler = _Compiler(resolution, classes)
    function = compiler.record(resolution.reader.record(root), resolution.writer.record(written))
    compiler.run()
    found: Decoder = compiler.start(function)
    return found


class _Budget:
    """How many items without bytes one message may still hold."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = ITEMS_WITHOUT_BYTES_MAX

    def spend(self, items: int) -> None:
        """Take so many; raises Malformed where they are more than are left."""
        self.left -= items
        if self.left < 0:
            malformed(f"more than {ITEMS_WITHOUT_BYTES_MAX} items that take no bytes")


class _Compiler:
    """Writes the source of one decoder: a function for each pair of records, and for what is skipped."""

    def __init__(self, resolution: Resolution, classes: Mapping[str, type[Any]]) -> None:
        self._resolution = resolution
        self._reader = resolution.reader
        self._writer = resolution.writer
        self._classes = classes
        self._source = Source()
        self._functions: dict[tuple[str, ...], str] = {}
        self._pending: list[Callable[[], None]] = []
        self._loops = 0
        self._counts_items = False

    def record(self, reader: RecordSchema, writer: RecordSchema) -> str:
        """Return the name of the function for a pair of records; it is written later, once."""
        return self._function(("record", reader.name, writer.name), lambda name: self._record(name, reader, writer))

    def run(self) -> None:
        """Write all functions that were asked for, and those that they ask for."""
        while self._pending:
            self._pending.pop()()

    def start(self, function: str) -> Any:
        """Return the compiled function that reads a whole message."""
        with self._source.block("def start(b, p)"):
            budget = f"{self._source.name(_Budget)}()" if self._counts_items else "None"
            self._source.line(f"return {function}(b, p, 0, {budget})")
        return self._source.compiled()["start"]

    def _function(self, key: tuple[str, ...], write: Callable[[str], None]) -> str:
        name = self._functions.get(key)
        if name is None:
            name = self._functions[key] = f"read{len(self._functions)}"
            found = name
            self._pending.append(lambda: write(found))
        return name

    def _record(self, name: str, reader: RecordSchema, writer: RecordSchema) -> None:
        source = self._source
        known = self._classes[reader.name]
        names = attributes(reader)
        match = self._resolution.fields(reader, writer)
        with source.block(f"def {name}(b, p, d, z)"):
            self._check_depth()
            problem = _unfit_fields(match)
            if problem:
                self._refuse(f"{reader.name}: {problem}")
            source.line(f"o = {source.name(_blank(known))}()")
            for written, taken in match.taken:
                if taken is None:
                    self._skip(written.type)
                else:
                    self._value(taken.type, written.type, f"o.{names[taken.name]}")
            for item in match.missing:
                if item.has_default:
                    source.line(f"o.{names[item.name]} = {self._default(item.type, item.default)}")
            source.line(f"o.__class__ = {source.name(known)}")
            source.line("return o, p")

    def _check_depth(self) -> None:
        with self._source.block(f"if d > {DEPTH_MAX}"):
            self._refuse(f"nested deeper than {DEPTH_MAX} levels")

    def _default(self, schema: AvroType, default: Any) -> str:
        """Return the expression of a default: the same object each time, but for what can be changed."""
        reader, classes = self._reader, self._classes
        if has_map(reader, schema):
            return f"{self._source.name(lambda: default_value(reader, classes, schema, default))}()"
        return self._source.name(default_value(reader, classes, schema, default))

    def _refuse(self, problem: str) -> None:
        # As an object, not as text: names from a file do not get into the source.
        self._source.line(f"{self._source.name(malformed)}({self._source.name(problem)})")

    def _value(self, reader: AvroType, writer: AvroType, target: str) -> None:
        """Write the code that reads what `writer` wrote at `p`, and assigns it to `target` as `reader` takes it."""
        match reader, writer:
            case _, Union(branches=branches):
                self._branches(branches, lambda branch: self._value(reader, branch, target))
            case Union(), _:
                branch = self._resolution.branch(reader, writer)
                self._unresolved(reader, writer) if branch is None else self._value(branch, writer, target)
            case Primitive(), Primitive():
                self._primitive(reader, writer, target)
            case Array(), Array():
                self._array(reader.items, writer.items, target)
            case Map(), Map():
                self._map(reader.values, writer.values, target)
            case Reference(), Reference():
                self._named(self._reader[reader.name], self._writer[writer.name], target)
            case _:
                self._unresolved(reader, writer)

    def _unresolved(self, reader: AvroType | NamedSchema, writer: AvroType | NamedSchema) -> None:
        self._refuse(f"{_kind(writer)} where the reader takes {_kind(reader)}")

    def _branches(self, branches: tuple[AvroType, ...], read: Callable[[AvroType], None]) -> None:
        source = self._source
        index = source.variable()
        self._size(index)
        for place, branch in enumerate(branches):
            with source.block(f"{'elif' if place else 'if'} {index} == {place}"):
                read(branch)
                source.line("pass")
        with source.block("else"):
            self._refuse("a branch that the union does not have")

    def _size(self, target: str) -> None:
        """Read a length or an index: one byte in nearly all cases, and then not negative if it is even."""
        source = self._source
        source.line(f"{target} = b[p]")
        with source.block(f"if {target} & 129"):
            source.line(f"{target}, p = {source.name(size_at)}(b, p)")
        with source.block("else"):
            source.line(f"{target} >>= 1")
            source.line("p += 1")

    def _slice(self, target: str, suffix: str) -> None:
        self._size("n")
        self._source.line("q = p + n")
        self._source.line(f"{target} = b[p:q]{suffix}")
        self._source.line("p = q")

    def _fixed_slice(self, size: int, target: str) -> None:
        source = self._source
        source.line(f"q = p + {size}")
        with source.block("if q > len(b)"):  # else an array of them would never end
            self._refuse("the bytes end too early")
        source.line(f"{target} = b[p:q]")
        source.line("p = q")

    def _primitive(self, reader: Primitive, writer: Primitive, target: str) -> None:
        if reader.name != writer.name and (writer.name, reader.name) != ("int", "long"):
            self._promoted(reader, writer, target)
            return
        conversion = conversion_of(reader, writer)
        if conversion is None:
            self._unresolved(reader, writer)
        else:
            self._converted(conversion, lambda raw: self._raw(writer.name, raw), target)

    def _converted(self, conversion: Conversion, read: Callable[[str], None], target: str) -> None:
        """Read a raw value and make of it what its logical type says."""
        if conversion.function is None:
            read(target)
            return
        raw = self._source.variable()
        read(raw)
        arguments = "".join(f", {number}" for number in conversion.arguments)
        self._source.line(f"{target} = {self._source.name(conversion.function)}({raw}{arguments})")

    def _raw(self, name: str, target: str) -> None:
        source = self._source
        match name:
            case "null":
                source.line(f"{target} = None")
            case "boolean":
                source.line("n = b[p]")
                source.line("p += 1")
                with source.block("if n > 1"):
                    self._refuse("a boolean that is neither 0 nor 1")
                source.line(f"{target} = n == 1")
            case "int" | "long":
                source.line("n = b[p]")
                with source.block("if n < 128"):
                    source.line(f"{target} = (n >> 1) ^ -(n & 1)")
                    source.line("p += 1")
                with source.block("else"):
                    source.line(f"{target}, p = {source.name(int_at if name == 'int' else long_at)}(b, p)")
            case "float" | "double":
                read, size = (_SINGLE_READ, 4) if name == "float" else (_DOUBLE_READ, 8)
                source.line(f"{target} = {source.name(read)}(b, p)[0]")
                source.line(f"p += {size}")
            case "bytes":
                self._slice(target, "")
            case _:
                self._slice(target, ".decode()")

    def _promoted(self, reader: Primitive, writer: Primitive, target: str) -> None:
        source = self._source
        raw = source.variable()
        match writer.name, reader.name:
            case "float", "double":
                self._raw("float", target)
            case (("int" | "long"), ("float" | "double")):
                self._raw(writer.name, raw)
                source.line(f"{target} = {source.name(_rounded if reader.name == 'float' else float)}({raw})")
            case ("string", "bytes") | ("bytes", "string"):
                conversion = conversion_of(reader, Primitive(reader.name))
                if conversion is None or (writer.logical and reader.logical):
                    self._unresolved(reader, writer)
                    return
                self._converted(conversion, lambda found: self._raw(reader.name, found), target)
            case _:
                self._unresolved(reader, writer)

    def _named(self, reader: NamedSchema, writer: NamedSchema, target: str) -> None:
        source = self._source
        if not self._resolution.same_type(reader, writer):
            self._unresolved(reader, writer)
            return
        match reader, writer:
            case RecordSchema(), RecordSchema():
                source.line(f"{target}, p = {self.record(reader, writer)}(b, p, d + 1, z)")
            case EnumSchema(), EnumSchema():
                self._enum(reader, writer, target)
            case FixedSchema(), FixedSchema():
                self._fixed(reader, writer, target)

    def _enum(self, reader: EnumSchema, writer: EnumSchema, target: str) -> None:
        known = self._classes[reader.name]
        fallback = None if reader.default is None else known(reader.default)
        table = tuple(known(symbol) if symbol in reader.symbols else fallback for symbol in writer.symbols)
        self._size("n")
        if None in table:
            with self._source.block(f"if {self._source.name(table)}[n] is None"):
                self._refuse(f"a symbol that {reader.name} does not know")
        self._source.line(f"{target} = {self._source.name(table)}[n]")

    def _fixed(self, reader: FixedSchema, writer: FixedSchema, target: str) -> None:
        conversion = conversion_of(reader, writer)
        if reader.size != writer.size or conversion is None:
            self._unresolved(reader, writer)
        else:
            self._converted(conversion, lambda raw: self._fixed_slice(writer.size, raw), target)

    def _array(self, reader: AvroType, writer: AvroType, target: str) -> None:
        if self._loops >= _LOOPS_MAX:
            self._apart(("array", repr(reader), repr(writer)), lambda: self._array(reader, writer, "v"), target)
            return
        source = self._source
        held, each = source.variable(), source.variable()
        source.line(f"{held} = []")
        with self._blocks(writer):
            self._value(reader, writer, each)
            source.line(f"{held}.append({each})")
        source.line(f"{target} = {source.name(tuple)}({held})")

    def _map(self, reader: AvroType, writer: AvroType, target: str) -> None:
        if self._loops >= _LOOPS_MAX:
            self._apart(("map", repr(reader), repr(writer)), lambda: self._map(reader, writer, "v"), target)
            return
        source = self._source
        held, key, each = source.variable(), source.variable(), source.variable()
        source.line(f"{held} = {{}}")
        with self._blocks(None):
            self._slice(key, ".decode()")
            self._value(reader, writer, each)
            source.line(f"{held}[{key}] = {each}")
        source.line(f"{target} = {held}")

    def _apart(self, key: tuple[str, ...], read: Callable[[], None], target: str) -> None:
        """Read a collection deep inside others by a function of its own: Python allows only so many nested loops."""

        def write(name: str) -> None:
            loops, self._loops = self._loops, 0
            with self._source.block(f"def {name}(b, p, d, z)"):
                read()
                self._source.line("return v, p")
            self._loops = loops

        self._source.line(f"{target}, p = {self._function(key, write)}(b, p, d, z)")

    def _blocks(self, item: AvroType | None) -> "_Loop":
        """Return the loop over the blocks of a collection; `item` is the written type, None where keys precede it."""
        free = item is not None and not _takes_bytes(self._writer, item)
        self._counts_items = self._counts_items or free
        return _Loop(self, self._source, free=free)

    def enter_loop(self, change: int) -> None:
        """Count the loops that are open in this function."""
        self._loops += change

    def _skip(self, writer: AvroType) -> None:
        """Write the code that passes over what the reader does not want, with all the checks but those of its value."""
        source = self._source
        match writer:
            case Union(branches=branches):
                self._branches(branches, self._skip)
            case Primitive(name=name):
                self._raw(name, source.variable())
            case Array(items=item) | Map(values=item):
                key = (type(writer).__name__, repr(item))
                self._apart_skip(key, item, keyed=isinstance(writer, Map))
            case Reference(name=name):
                match self._writer[name]:
                    case RecordSchema() as schema:
                        function = self._function(("skip", name), lambda found: self._skip_record(found, schema))
                        source.line(f"p = {function}(b, p, d + 1, z)")
                    case EnumSchema(symbols=symbols):
                        self._size("n")
                        with source.block(f"if n >= {len(symbols)}"):
                            self._refuse("a symbol that the enum does not have")
                    case FixedSchema(size=size):
                        self._fixed_slice(size, "n")

    def _skip_record(self, name: str, schema: RecordSchema) -> None:
        with self._source.block(f"def {name}(b, p, d, z)"):
            self._check_depth()
            for item in schema.fields:
                self._skip(item.type)
            self._source.line("return p")

    def _apart_skip(self, key: tuple[str, ...], item: AvroType, *, keyed: bool) -> None:
        def write(name: str) -> None:
            loops, self._loops = self._loops, 0
            with self._source.block(f"def {name}(b, p, d, z)"):
                with self._blocks(None if keyed else item):
                    if keyed:
                        self._slice("n", ".decode()")
                    self._skip(item)
                    self._source.line("pass")
                self._source.line("return p")
            self._loops = loops

        self._source.line(f"p = {self._function(('skip', *key), write)}(b, p, d, z)")


class _Loop:
    """The two loops of a collection: over its blocks, and over the items of one."""

    def __init__(self, compiler: _Compiler, source: Source, *, free: bool) -> None:
        self._compiler = compiler
        self._source = source
        self._free = free
        self._count = source.variable()
        self._blocks = (source.block("while True"), source.block(f"for _ in {source.name(range)}({self._count})"))

    def __enter__(self) -> None:
        source, count = self._source, self._count
        self._compiler.enter_loop(1)
        self._blocks[0].__enter__()
        source.line(f"{count} = b[p]")
        with source.block(f"if {count} & 129"):
            source.line(f"{count}, p = {source.name(count_at)}(b, p)")
        with source.block("else"):
            source.line(f"{count} >>= 1")
            source.line("p += 1")
        with source.block(f"if not {count}"):
            source.line("break")
        if self._free:
            source.line(f"z.spend({count})")
        self._blocks[1].__enter__()

    def __exit__(self, *error: object) -> None:
        self._blocks[1].__exit__(None, None, None)
        self._blocks[0].__exit__(None, None, None)
        self._compiler.enter_loop(-1)


def _blank(known: type[Any]) -> type[Any]:
    """Return a class whose empty instances can be filled, and then become instances of the frozen class `known`.

    A frozen class sets each field through `object.__setattr__`, which takes longer than reading the field.
    """
    return type(f"Blank{known.__name__}", known.__bases__, {"__slots__": known.__slots__})


def _unfit_fields(match: FieldMatch) -> str:
    if match.unclear:
        return f"{', '.join(item.name for item in match.unclear)}: aliases lead in a circle"
    needed = [item.name for item in match.missing if not item.has_default]
    if needed:
        return f"{', '.join(needed)}: not written, and without a default"
    return (
        f"{', '.join(item.name for item in match.twice)}: written twice, under an alias as well" if match.twice else ""
    )


def _takes_bytes(schemas: Schemas, schema: AvroType) -> bool:
    """Return whether every value of a type takes at least one byte. A record that only holds itself takes none."""

    def takes(current: AvroType, inside: frozenset[str]) -> bool:
        match current:
            case Primitive(name=name):
                return name != "null"
            case Reference(name=name):
                match schemas[name]:
                    case RecordSchema(fields=fields):
                        return name not in inside and any(takes(item.type, inside | {name}) for item in fields)
                    case FixedSchema(size=size):
                        return size > 0
                    case _:
                        return True
            case _:
                return True

    return takes(schema, frozenset())


def _rounded(number: int) -> float:
    """Return the nearest number that 32 bits hold."""
    return float(SINGLE.unpack(SINGLE.pack(number))[0])


def _kind(schema: AvroType | NamedSchema) -> str:
    match schema:
        case Primitive():
            return schema.logical or schema.name
        case Array():
            return "an array"
        case Map():
            return "a map"
        case Union():
            return "a union without it"
        case FixedSchema(size=size):
            return f"{schema.name} of {size} bytes"
        case _:
            return schema.name
