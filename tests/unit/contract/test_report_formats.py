"""Findings are written for people, programs, build servers, code hosts and pull requests, in one order."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from towpath.contract.finding import Finding, Severity, in_order
from towpath.contract.report_formats import Format, write

BREAK = Finding(
    "compatibility",
    "shop.order.OrderPlaced",
    "readers of version 1 cannot read it: 100% of *them*, a:b",
    breaks=("saga place_order", "view order_status"),
    fix="give it a default",
    unaffected=("service payment",),
    place="OrderPlaced.total",
    sample='{"order_id": "a\u0000`"}',
    file="schemas/avro/order/OrderPlaced.avsc",
    line=7,
)
WARNING = Finding("unit-changed", "shop.order.A", "cents became euros", severity=Severity.WARNING)
WAIVED = replace(BREAK, severity=Severity.WAIVED, subject="shop.order.B", waived_because="known (ada, until 2027)")
FINDINGS = in_order([WAIVED, WARNING, BREAK])


def test_the_order_is_the_same_whoever_came_first() -> None:
    """Errors, then warnings, then what is waived; the same finding stands there once."""
    assert in_order([BREAK, WARNING, WAIVED, BREAK]) == FINDINGS
    assert [one.severity.value for one in FINDINGS] == ["error", "warning", "waived"]


@pytest.mark.parametrize("form", list(Format))
def test_the_same_findings_give_the_same_bytes(form: Format) -> None:
    """No time, no machine, no set's order; each finding is named in each form."""
    text = write(form, "contracts", FINDINGS)
    assert text == write(form, "contracts", FINDINGS)
    assert text.endswith("\n")
    for one in FINDINGS:
        assert one.rule in text
        assert one.subject in text


@pytest.mark.parametrize("form", list(Format))
def test_nothing_found_is_a_whole_document_too(form: Format) -> None:
    """A build server that expects a file gets one that it can read."""
    text = write(form, "contracts", ())
    if form is Format.JUNIT:
        assert ElementTree.fromstring(text.encode()).get("failures") == "0"
    elif form in {Format.JSON, Format.SARIF}:
        json.loads(text)
    else:
        assert "nothing found" in text


def test_junit_counts_failures_and_skips_what_is_waived() -> None:
    """A build fails for errors alone."""
    suite = ElementTree.fromstring(write(Format.JUNIT, "contracts", FINDINGS).encode())[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.text is not None
    assert "breaks saga place_order" in failure.text


def test_sarif_names_file_line_and_rule_and_suppresses_what_is_waived() -> None:
    """As version 2.1.0 of the form says."""
    run = json.loads(write(Format.SARIF, "contracts", FINDINGS))["runs"][0]
    first, _, last = run["results"]
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == BREAK.file
    assert first["locations"][0]["physicalLocation"]["region"]["startLine"] == 7
    assert run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == "compatibility"
    assert last["suppressions"] == [{"kind": "external", "justification": "known (ada, until 2027)"}]


def test_github_annotations_escape_what_would_end_them() -> None:
    """A line each; percent signs, line ends and colons are written as that host reads them."""
    first = write(Format.GITHUB, "contracts", FINDINGS).splitlines()[0]
    assert first.startswith("::error file=schemas/avro/order/OrderPlaced.avsc,line=7,title=compatibility shop")
    assert "100%25 of" in first
    assert "%0Abreaks saga place_order" in first


def test_markdown_says_who_breaks_and_escapes_what_is_markup() -> None:
    """For a pull request's comment."""
    text = write(Format.MARKDOWN, "contracts", FINDINGS)
    assert "#### Error" in text
    assert "  - breaks view order\\_status" in text
    assert "of \\*them\\*" in text
