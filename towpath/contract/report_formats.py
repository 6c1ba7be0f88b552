"""Writes findings for whoever reads them: a person, a program, a build server, a code host, a pull request. Pure.

Each form has the findings in the same order, and each finding once. Nothing but the findings and the title goes in:
the same findings give the same bytes on any day and any machine.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final
from xml.etree import ElementTree

from towpath.contract.finding import Finding, Severity

_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.WAIVED: "note", Severity.NOTE: "note"}


class Format(StrEnum):
    """In which form findings are written."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    SARIF = "sarif"
    GITHUB = "github"
    MARKDOWN = "markdown"


def write(form: Format, title: str, findings: Sequence[Finding]) -> str:
    """Return `findings` in `form`, ending in a newline. `title` says what was checked."""
    return _WRITERS[form](title, findings).rstrip("\n") + "\n"


def as_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON; what is empty is left out, except for what every finding has."""
    parts = {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "subject": finding.subject,
        "place": finding.place,
        "problem": finding.problem,
        "breaks": list(finding.breaks),
        "unaffected": list(finding.unaffected),
        "fix": finding.fix,
        "sample": finding.sample,
        "file": finding.file,
        "line": finding.line,
        "waived_because": finding.waived_because,
    }
    always = {"rule", "severity", "subject", "problem", "breaks", "fix"}
    return {name: value for name, value in parts.items() if value or name in always}


def summary(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each severity, in words."""
    counts = {severity: sum(1 for one in findings if one.severity is severity) for severity in Severity}
    words = [f"{count} {_plural(severity, count)}" for severity, count in counts.items() if count]
    return ", ".join(words) or "nothing found"


def _plural(severity: Severity, count: int) -> str:
    return severity.value if count == 1 or severity is Severity.WAIVED else f"{severity.value}s"


def _text(title: str, findings: Sequence[Finding]) -> str:
    lines: list[str] = []
    for one in findings:
        lines.append(f"{one.severity.value} {one.rule} {one.subject}")
        lines += [f"  {line}" for line in _details(one)]
    return "\n".join([*lines, f"{title}: {summary(findings)}"])


def _details(one: Finding) -> list[str]:
    """Return what there is to say of a finding, a line each."""
    lines = [one.problem]
    lines += [f"breaks {who}" for who in one.breaks]
    lines += [f"not affected: {', '.join(one.unaffected)}"] if one.unaffected else []
    lines += [f"for example {one.sample}"] if one.sample else []
    lines += [f"fix: {one.fix}"] if one.fix else []
    lines += [f"waived: {one.waived_because}"] if one.waived_because else []
    return lines


def _json(title: str, findings: Sequence[Finding]) -> str:
    document = {
        "title": title,
        "ok": not any(one.fails for one in findings),
        "findings": [as_json(one) for one in findings],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _junit(title: str, findings: Sequence[Finding]) -> str:
    failures = [one for one in findings if one.fails]
    waived = [one for one in findings if one.severity is Severity.WAIVED]
    counts = {"tests": str(max(len(findings), 1)), "failures": str(len(failures)), "skipped": str(len(waived))}
    suite = ElementTree.Element("testsuite", {"name": title, **counts})
    for one in findings:
        case = ElementTree.SubElement(suite, "testcase", {"classname": one.rule, "name": _name(one)})
        if one.file:
            case.set("file", one.file)
            case.set("line", str(one.line or 1))
        text = _xml_text("\n".join(_details(one)))
        if one.fails:
            ElementTree.SubElement(case, "failure", {"type": one.rule, "message": _xml_text(one.problem)}).text = text
        elif one.severity is Severity.WAIVED:
            ElementTree.SubElement(case, "skipped", {"message": _xml_text(one.waived_because)})
        else:
            ElementTree.SubElement(case, "system-out").text = text
    if not findings:
        ElementTree.SubElement(suite, "testcase", {"classname": "contracts", "name": title})
    suites = ElementTree.Element("testsuites", counts)
    suites.append(suite)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode")


def _name(one: Finding) -> str:
    return f"{one.subject} {one.place}".strip()


def _xml_text(text: str) -> str:
    """Return `text` without the characters that XML has no way to write."""
    return "".join(letter if letter in "\t\n" or letter >= " " else "?" for letter in text)


def _sarif(title: str, findings: Sequence[Finding]) -> str:
    rules = sorted({one.rule for one in findings})
    results = [
        {
            "ruleId": one.rule,
            "ruleIndex": rules.index(one.rule),
            "level": _LEVELS[one.severity],
            "message": {"text": "\n".join([_name(one), *_details(one)])},
            **({"locations": [_sarif_location(one)]} if one.file else {}),
            "partialFingerprints": {"towpath/v1": _fingerprint(one)},
            **(
                {"suppressions": [{"kind": "external", "justification": one.waived_because}]}
                if one.severity is Severity.WAIVED
                else {}
            ),
        }
        for one in findings
    ]
    driver = {"name": "towpath contracts", "rules": [{"id": rule} for rule in rules]}
    run = {"tool": {"driver": driver}, "automationDetails": {"id": title}, "results": results}
    return json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _sarif_location(one: Finding) -> Mapping[str, Any]:
    region = {"startLine": one.line or 1}
    return {"physicalLocation": {"artifactLocation": {"uri": one.file}, "region": region}}


def _fingerprint(one: Finding) -> str:
    """Return what stays the same when lines move: a code host follows a finding by it."""
    return hashlib.sha256(f"{one.rule} {one.subject} {one.place} {one.problem}".encode()).hexdigest()[:32]


def _github(title: str, findings: Sequence[Finding]) -> str:
    commands = {
        Severity.ERROR: "error",
        Severity.WARNING: "warning",
        Severity.WAIVED: "notice",
        Severity.NOTE: "notice",
    }
    lines = []
    for one in findings:
        where = f"file={_property(one.file)},line={one.line or 1}," if one.file else ""
        heading, text = _property(f"{one.rule} {one.subject}"), _data("\n".join(_details(one)))
        lines.append(f"::{commands[one.severity]} {where}title={heading}::{text}")
    return "\n".join([*lines, f"{title}: {summary(findings)}"])


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _markdown(title: str, findings: Sequence[Finding]) -> str:
    lines = [f"### {title}", "", f"{summary(findings)}.", ""]
    for severity in Severity:
        some = [one for one in findings if one.severity is severity]
        if not some:
            continue
        lines += [f"#### {severity.value.capitalize()}", ""]
        for one in some:
            lines += [f"- **{one.rule}** `{_name(one)}`: {_escaped(one.problem)}"]
            lines += [f"  - breaks {_escaped(who)}" for who in one.breaks]
            lines += [f"  - not affected: {_escaped(', '.join(one.unaffected))}"] if one.unaffected else []
            sample = one.sample.replace("`", "'")
            lines += [f"  - for example `{sample}`"] if sample else []
            lines += [f"  - fix: {_escaped(one.fix)}"] if one.fix else []
            lines += [f"  - waived: {_escaped(one.waived_because)}"] if one.waived_because else []
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\`*_<>|#" else letter for letter in text).replace("\n", " ")


_WRITERS: Final[Mapping[Format, Callable[[str, Sequence[Finding]], str]]] = {
    Format.TEXT: _text,
    Format.JSON: _json,
    Format.JUNIT: _junit,
    Format.SARIF: _sarif,
    Format.GITHUB: _github,
    Format.MARKDOWN: _markdown,
}
