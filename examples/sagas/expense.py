"""An expense report: a manager decides, is reminded, may ask for time; if nobody does, the next level is asked."""

from dataclasses import dataclass

from towpath.saga import COMPENSATE, NO_EFFECT, PROCEED, Participant, Prolong, Remind, Saga, days, hours, minutes

books, bank = Participant("books"), Participant("bank")


@dataclass(frozen=True, slots=True)
class ExpenseReported:
    report: str = "r-1"
    cents: int = 12_000


@dataclass(frozen=True, slots=True)
class ReportWithdrawn:
    report: str = "r-1"


@dataclass(frozen=True, slots=True)
class CheckReceipts:
    report: str


@dataclass(frozen=True, slots=True)
class ReceiptsFine:
    pass


@dataclass(frozen=True, slots=True)
class ReceiptsMissing:
    pass


@dataclass(frozen=True, slots=True)
class ManagerApproved:
    name: str = "grace"


@dataclass(frozen=True, slots=True)
class ManagerDeclined:
    name: str = "grace"


@dataclass(frozen=True, slots=True)
class ManagerIsAway:
    pass


@dataclass(frozen=True, slots=True)
class DirectorApproved:
    name: str = "edsger"


@dataclass(frozen=True, slots=True)
class DirectorDeclined:
    name: str = "edsger"


@dataclass(frozen=True, slots=True)
class ReportWaits:
    report: str
    reminder: int


@dataclass(frozen=True, slots=True)
class Reimburse:
    report: str
    approver: str


@dataclass(frozen=True, slots=True)
class Reimbursed:
    pass


@dataclass(frozen=True, slots=True)
class ExpensePaid:
    report: str
    approver: str


def check_receipts(report: ExpenseReported) -> CheckReceipts:
    return CheckReceipts(report.report)


def report_waits(report: ExpenseReported, reminder: int) -> ReportWaits:
    return ReportWaits(report.report, reminder)


def nobody_decided(report: ExpenseReported, manager: ManagerApproved | None) -> bool:
    return manager is None


def approver_of(manager: ManagerApproved | None, director: DirectorApproved | None) -> str:
    return manager.name if manager else director.name if director else "nobody"


def reimburse(report: ExpenseReported, manager: ManagerApproved | None, director: DirectorApproved | None) -> Reimburse:
    return Reimburse(report.report, approver_of(manager, director))


def expense_paid(
    report: ExpenseReported, manager: ManagerApproved | None, director: DirectorApproved | None
) -> ExpensePaid:
    return ExpensePaid(report.report, approver_of(manager, director))


saga = Saga("pay_expense", version=1, starts_on=ExpenseReported, cancel_on=ReportWithdrawn, deadline=days(60))
receipts = saga.step(
    books, check_receipts, undo=NO_EFFECT, succeeds=ReceiptsFine, fails=ReceiptsMissing, within=minutes(5)
)
manager = saga.wait(
    "manager",
    after=receipts,
    succeeds=ManagerApproved,
    fails=ManagerDeclined,
    within=days(5),
    on_timeout=PROCEED,
    reminds=Remind(report_waits, event=ReportWaits, every=days(1), times=3),
    prolonged=Prolong(ManagerIsAway, by=days(14), times=2),
)
director = saga.wait(
    "director",
    needs=manager,
    when=nobody_decided,
    succeeds=DirectorApproved,
    fails=DirectorDeclined,
    within=days(10),
    on_timeout=COMPENSATE,
)
paid = saga.pivot(bank, reimburse, needs=manager & director, succeeds=Reimbursed, within=hours(1))
saga.result(expense_paid, event=ExpensePaid, needs=manager & director)
