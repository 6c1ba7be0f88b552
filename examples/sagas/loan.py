"""A loan: one bureau or else the other rates the applicant; small loans pass at once, large ones need an officer."""

from dataclasses import dataclass

from towpath.saga import COMPENSATE, NO_EFFECT, Participant, Remind, Saga, Undo, days, hours, minutes, seconds

bureau, other_bureau, vault, ledger = map(Participant, ("bureau", "other_bureau", "vault", "ledger"))

SMALL_CENTS = 500_000


@dataclass(frozen=True, slots=True)
class LoanAsked:
    applicant: str = "ada"
    cents: int = 900_000


@dataclass(frozen=True, slots=True)
class RateApplicant:
    applicant: str


@dataclass(frozen=True, slots=True)
class Rated:
    score: int = 700


@dataclass(frozen=True, slots=True)
class NotOnFile:
    pass


@dataclass(frozen=True, slots=True)
class ReserveFunds:
    applicant: str
    cents: int
    score: int


@dataclass(frozen=True, slots=True)
class FundsReserved:
    pass


@dataclass(frozen=True, slots=True)
class FundsShort:
    pass


@dataclass(frozen=True, slots=True)
class ReleaseFunds:
    applicant: str


@dataclass(frozen=True, slots=True)
class FundsReleased:
    pass


@dataclass(frozen=True, slots=True)
class LoanApproved:
    officer: str = "grace"


@dataclass(frozen=True, slots=True)
class LoanDenied:
    officer: str = "grace"


@dataclass(frozen=True, slots=True)
class DecisionOverdue:
    applicant: str
    reminder: int


@dataclass(frozen=True, slots=True)
class SignContract:
    applicant: str
    officer: str


@dataclass(frozen=True, slots=True)
class ContractSigned:
    number: int = 1


@dataclass(frozen=True, slots=True)
class PayOut:
    number: int


@dataclass(frozen=True, slots=True)
class PaidOut:
    pass


@dataclass(frozen=True, slots=True)
class LoanGranted:
    applicant: str
    number: int


def rate_applicant(loan: LoanAsked) -> RateApplicant:
    return RateApplicant(loan.applicant)


def rate_elsewhere(loan: LoanAsked) -> RateApplicant:
    return RateApplicant(loan.applicant)


def reserve_funds(loan: LoanAsked, rated: Rated) -> ReserveFunds:
    return ReserveFunds(loan.applicant, loan.cents, rated.score)


def release_funds(loan: LoanAsked) -> ReleaseFunds:
    return ReleaseFunds(loan.applicant)


def who_decides(loan: LoanAsked, rated: Rated) -> str:
    return "at_once" if loan.cents <= SMALL_CENTS and rated.score > 600 else "by_officer"


def decision_overdue(loan: LoanAsked, reminder: int) -> DecisionOverdue:
    return DecisionOverdue(loan.applicant, reminder)


def sign_contract(loan: LoanAsked, approved: LoanApproved | None) -> SignContract:
    return SignContract(loan.applicant, approved.officer if approved else "the rules")


def pay_out(loan: LoanAsked, contract: ContractSigned) -> PayOut:
    return PayOut(contract.number)


def loan_granted(loan: LoanAsked, contract: ContractSigned) -> LoanGranted:
    return LoanGranted(loan.applicant, contract.number)


saga = Saga("grant_loan", version=1, starts_on=LoanAsked, deadline=days(20))
here = saga.step(bureau, rate_applicant, undo=NO_EFFECT, succeeds=Rated, fails=NotOnFile, within=minutes(1))
rated = saga.step(
    other_bureau, rate_elsewhere, instead_of=here, undo=NO_EFFECT, succeeds=Rated, fails=NotOnFile, within=minutes(1)
)
funds = saga.step(
    vault,
    reserve_funds,
    needs=rated,
    undo=Undo(release_funds, succeeds=FundsReleased),
    succeeds=FundsReserved,
    fails=FundsShort,
    within=seconds(30),
)
at_once, by_officer = saga.choose(
    "decision", by=who_decides, needs=rated, after=funds, options=("at_once", "by_officer")
)
approval = saga.wait(
    "approval",
    after=by_officer,
    succeeds=LoanApproved,
    fails=LoanDenied,
    within=days(10),
    on_timeout=COMPENSATE,
    reminds=Remind(decision_overdue, event=DecisionOverdue, every=days(3), times=3),
)
approved = saga.merge("approved", approval, at_once)
contract = saga.pivot(ledger, sign_contract, needs=approved, succeeds=ContractSigned, within=minutes(1))
saga.retriable(vault, pay_out, needs=contract, succeeds=PaidOut, within=minutes(1), retry_for=hours(48))
saga.result(loan_granted, event=LoanGranted, needs=contract)
