"""Rules of fields in the Common Expression Language, through `celpy`. Pure, and bounded in time.

An expression stands in a file that may come from elsewhere, and is asked about values that anyone may send: its length
is bounded when it is read, and its steps each time it is asked.
"""

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from towpath.contract.record import Duration, Record

LENGTH_MAX: Final = 2_000
# A step takes some 15 microseconds of CPU: 0.7 s. A list of 5,000 items with a plain condition takes 40,000.
STEPS_MAX: Final = 50_000


class CannotRead(ValueError):
    """An expression that is none, or longer than LENGTH_MAX characters."""


class _TooLong(Exception):
    pass


def compile_cel(text: Any) -> Callable[[Any], str | None]:
    """Return a function that says what is wrong with a value, None where `text` holds for it.

    Raises CannotRead, and ModuleNotFoundError where `celpy` is not installed.
    """
    import celpy

    if not isinstance(text, str) or len(text) > LENGTH_MAX:
        raise CannotRead(f"it is a text of at most {LENGTH_MAX} characters")
    environment = celpy.Environment(runner_class=_bounded_runner())
    try:
        program = environment.program(environment.compile(text))
    except (celpy.CELParseError, TypeError, RecursionError) as error:
        raise CannotRead((str(error).strip().splitlines() or [type(error).__name__])[0]) from error

    def rule(value: Any) -> str | None:
        try:
            holds = program.evaluate({"value": _to_cel(value)})
        except _TooLong:
            return f"cannot be judged by {text}: it takes more than {STEPS_MAX} steps"
        except RecursionError:
            return f"cannot be judged by {text}: it is nested too deeply"
        except celpy.CELEvalError as error:
            # Its words go on with the whole environment, values among it.
            return f"cannot be judged by {text}: {str(error.args[0]).partition(' (in activation')[0]}"
        if not isinstance(holds, bool | celpy.celtypes.BoolType):
            return f"cannot be judged by {text}: it gives no true or false"
        return None if holds else f"does not hold: {text}"

    return rule


def _bounded_runner() -> Any:
    import celpy
    from celpy.evaluation import Evaluator

    class Bounded(Evaluator):
        """Counts the steps of an expression and of the macros inside it."""

        def __init__(self, ast: Any, activation: Any, steps: list[int]) -> None:
            super().__init__(ast, activation)
            self._steps = steps

        def sub_evaluator(self, ast: Any) -> Evaluator:
            return Bounded(ast, self.activation, self._steps)

        def visit_children(self, tree: Any) -> Any:
            self._steps[0] += 1
            if self._steps[0] > STEPS_MAX:
                raise _TooLong
            return super().visit_children(tree)

    class Runner(celpy.InterpretedRunner):
        def evaluate(self, context: Any) -> Any:
            return Bounded(self.ast, self.new_activation(), [0]).evaluate(context)

    return Runner


def _to_cel(value: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 - a case each
    """Return a value as CEL knows it: a decimal as a double, a day as its midnight in UTC, a record as a map."""
    from celpy import celtypes

    match value:
        case Enum():
            return celtypes.StringType(value.value)
        case Decimal():
            return celtypes.DoubleType(float(value))
        case UUID():
            return celtypes.StringType(str(value))
        case bytes():
            return celtypes.BytesType(value)
        case datetime():
            return celtypes.TimestampType(value if value.tzinfo else value.replace(tzinfo=UTC))
        case date():
            return celtypes.TimestampType(datetime(value.year, value.month, value.day, tzinfo=UTC))
        case time():
            since = timedelta(
                hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
            )
            return celtypes.DurationType(since)
        case Record() | Duration():
            inside: Any = value
            return _map({one.name: getattr(value, one.name) for one in fields(inside)})
        case tuple():
            return celtypes.ListType([_to_cel(item) for item in value])
        case dict():
            return _map(value)
        case bool():
            return celtypes.BoolType(value)
        case int():
            return celtypes.IntType(value)
        case float():
            return celtypes.DoubleType(value)
        case str():
            return celtypes.StringType(value)
        case _:
            return None


def _map(value: dict[str, Any]) -> Any:
    from celpy import celtypes

    return celtypes.MapType({celtypes.StringType(key): _to_cel(item) for key, item in value.items()})
