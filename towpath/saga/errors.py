"""What is wrong with a definition, said when its module is imported, with the way to fix it.

This room imports nothing but the standard library, so these errors stand beside `towpath.errors` and not below it;
they carry the same `cause` and `next_step`, and the command line shows them in the same way.
"""


class DefinitionError(ValueError):
    """A saga's definition breaks a rule; `cause` names the saga and the step, `next_step` says how to fix it."""

    def __init__(self, cause: str, *, next_step: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.cause}\nnext: {self.next_step}"


class BuilderError(RuntimeError):
    """A function of a definition (command builder, condition, list of items) raised, or returned what it must not.

    The machine's state is unchanged. `saga`, `step` and `function` name the place; the cause is chained.
    """

    def __init__(
        self, saga: str, step: str, function: str, problem: str = "raised on the data of this instance"
    ) -> None:
        super().__init__(f"saga {saga}, step {step}: {function} {problem}")
        self.saga = saga
        self.step = step
        self.function = function
