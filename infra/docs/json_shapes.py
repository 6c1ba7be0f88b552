"""What each verb prints with `--json`, by example: names are stable, further ones may be added.

A value says its type: "" a text, 0 and 0.0 a number, True a truth value, None a text or none. A list shows one item of
many. Tests hold this against the verbs that there are, and against what they print.
"""

from typing import Any

Shape = Any
PROCESS: Shape = {
    "name": "service:order",
    "group": "worker",
    "state": "ready",
    "pid": 0,
    "ports": [0],
    "memory_bytes": 0,
    "successor_memory_bytes": 0,
    "version": "",
    "uptime_seconds": 0.0,
    "starts": 0,
    "reason": None,
}
FINDING: Shape = {"severity": "problem", "subject": "", "finding": "", "fix": None}
POSITION: Shape = {
    "application": "",
    "topic": "",
    "partition": 0,
    "stored": 0,
    "begin": 0,
    "end": 0,
    "lag": 0,
    "held": None,
    "reason": None,
    "next": None,
}
GROUP: Shape = {
    "group": "",
    "worker": "",
    "members": [{"id": "", "client_id": "", "host": ""}],
    "lag": 0,
    "held": [POSITION],
}
CONTRACT_FINDING: Shape = {"rule": "", "severity": "error", "subject": "", "problem": "", "breaks": [""], "fix": ""}
CONTRACT_REPORT: Shape = {"title": "", "ok": True, "findings": [CONTRACT_FINDING]}
INSTANCE: Shape = {
    "saga": "",
    "version": 0,
    "saga_id": "",
    "key": "",
    "status": "running",
    "waits_for": [""],
    "held": None,
    "cause": None,
    "started_at": "",
    "since": "",
}
ENTRY: Shape = {
    "at": "",
    "saga": "",
    "version": 0,
    "saga_id": "",
    "key": "",
    "input_id": "",
    "happened": "",
    "detail": "",
    "step": "",
    "item": "",
    "direction": "do",
    "attempt": 0,
    "round": 0,
    "reason": "",
    "actor": "",
    "status": "",
    "cause": "",
    "waiting_for": [""],
    "sent": [{}],
    "input": "",
    "asked_because": "",
    "parent": None,
    "result": None,
}
OUTCOME: Shape = [
    {
        "request_id": "",
        "saga_id": "",
        "key": "",
        "action": "retry",
        "step": "",
        "item": "",
        "outcome": "applied",
        "reason": None,
        "status": None,
    }
]
LETTER_NAME: Shape = {"topic": "", "position": "0:0", "application": ""}
LETTERS_DONE: Shape = {
    "redriven": [LETTER_NAME],
    "dropped": [LETTER_NAME],
    "died_again": [LETTER_NAME],
    "left": [LETTER_NAME],
    "unread_by": [""],
}
VERSION_DECISION: Shape = {
    "view": "",
    "action": "promote",
    "version_before": 0,
    "version_after": 0,
    "actor": "",
    "reason": "",
    "detail": "",
    "done": True,
}
POSITION_DECISION: Shape = {
    "application": "",
    "topic": "",
    "partition": 0,
    "topic_id": "",
    "offset_before": 0,
    "offset_after": 0,
    "found": "",
    "actor": "",
    "reason": "",
    "forgets_from": 0,
    "done": True,
}
UPGRADE: Shape = {"migrate": 0, "pin": 0, "refuse": 0, "ended": 0, "already": 0, "groups": [{}]}
WRITTEN_PART: Shape = {"written": [""], "edit": [""]}
PLAN: Shape = {
    "form": 0,
    "replay_id": "",
    "source": None,
    "selection": {},
    "to": {},
    "ranges": [{"topic": "", "partition": 0, "begin": 0, "end": 0}],
    "topic_ids": {},
    "by_time": False,
    "rate": None,
    "order": "",
    "seconds": 0.0,
    "counted": {},
    "consumers": [{}],
    "problems": [""],
}
REPLAY: Shape = {
    "replay_id": "",
    "state": "running",
    "sent": 0,
    "records": 0,
    "actor": "",
    "reason": "",
    "forced": False,
    "started_at": "",
    "updated_at": "",
}
CAPTURED: Shape = {
    "service": "",
    "trouble": None,
    "waiting": 0,
    "refused": [{"id": "", "topic": "", "cause": ""}],
    "done": True,
}

SHAPES: dict[str, Shape] = {
    # The stack
    "up": {"started": [""], "seconds": 0.0, "processes": [PROCESS]},
    "down": {"stopped": True, "ended_by_force": ["connect"]},
    "status": {"running": True, "memory_bytes": 0, "processes": [PROCESS], "groups": [GROUP], "problems": [FINDING]},
    "logs": {"part": "", "file": "", "lines": [""]},
    "doctor": [FINDING],
    "run": [""],
    "demo": {
        "orders": 0,
        "completed": 0,
        "compensated": 0,
        "stuck": 0,
        "lost": 0,
        "executed_twice": 0,
        "money_conserved": True,
        "stock_conserved": True,
        "view_exact": True,
        "order_seconds_p50": 0.0,
        "order_seconds_p99": 0.0,
        "traffic_seconds": 0.0,
        "elapsed_seconds": 0.0,
        "stepped_over": 0,
    },
    # A project
    "new": {"folder": "", "written": [""]},
    "add service": WRITTEN_PART,
    "add saga": WRITTEN_PART,
    "add record": WRITTEN_PART,
    "add topic": WRITTEN_PART,
    "add view": WRITTEN_PART,
    "migrate": {"applied": {"order": ["0001_totals"]}},
    # Contracts
    "contracts generate": {"written": [""]},
    "contracts test": {
        "ok": True,
        "findings": [CONTRACT_FINDING],
        "records": 0,
        "versions": 0,
        "topics": 0,
        "good_examples": 0,
        "bad_examples": 0,
        "decodings": 0,
        "judges": [""],
    },
    "contracts check": CONTRACT_REPORT,
    "contracts diff": CONTRACT_REPORT,
    "contracts can-deploy": CONTRACT_REPORT,
    "contracts deployed": {"environment": "", "running": [""], "still_met": [""]},
    "contracts deploy-order": {"environment": "", "order": [""], "no_order": [""]},
    "contracts import": {
        "written": [""],
        "kept": [""],
        "refused": [{"source": "", "reason": ""}],
        "notes": [{"source": "", "reason": ""}],
    },
    "contracts register": [{"subject": "", "version": None, "schema_id": 0, "is_new": True}],
    # Sagas as they are defined
    "saga check": [
        {
            "saga": "",
            "version": 0,
            "states": 0,
            "transitions": 0,
            "refusals": 0,
            "seconds": 0.0,
            "violations": [
                {
                    "property": "",
                    "sentence": "",
                    "step": "",
                    "words": "",
                    "where": "",
                    "path": [""],
                    "diagram": "",
                    "test": "",
                }
            ],
            "worst_case_seconds": 0.0,
            "stuck": [{"step": "", "status": "", "reason": "", "person_can": [""], "path": [""]}],
            "bounds": {},
            "assumptions": [""],
            "exhaustive": [""],
            "sampled": {"functions": 0, "calls": 0, "elsewhere": 0, "without_data": [""]},
            "as_child": None,
        }
    ],
    "saga diagram": {"saga": "", "version": 0, "mermaid": ""},
    "saga record": {"written": [""]},
    "saga test": [{"saga": "", "version": 0, "recorded": True, "histories": 0, "changed": [""]}],
    "saga upgrade": {
        "saga": "",
        "old": 0,
        "new": 0,
        "changes": [""],
        "walked": {"states": 0, "reduced": False},
        "reachable": UPGRADE,
        "instances": UPGRADE,
    },
    "saga versions": [
        {
            "saga": "",
            "version": 0,
            "in_project": True,
            "need_it": 0,
            "ended": 0,
            "may_be_removed": True,
            "because": "",
        }
    ],
    # Sagas as they run
    "saga list": [INSTANCE],
    "saga show": {
        **INSTANCE,
        "dead_letters": [
            {
                "topic": "",
                "place": "0:0",
                "type": "",
                "step": None,
                "follows": None,
                "cause": "",
                "look": "towpath dead show ...",
            }
        ],
        "state": {},
    },
    "saga history": [ENTRY],
    "saga why": [{"sentence": "", "command": None}],
    "saga retry": OUTCOME,
    "saga resume": OUTCOME,
    "saga skip": OUTCOME,
    "saga cancel": OUTCOME,
    "saga compensate": OUTCOME,
    "saga signal": {"signal": "", "key": "", "id": "", "outcome": "applied", "reason": None, "status": None},
    # Capture and positions
    "capture status": [
        {
            "service": "",
            "connector": "running",
            "slot": "reserved",
            "read": True,
            "lag_bytes": 0,
            "retained_bytes": 0,
            "skipped": 0,
            "cause": None,
            "next": None,
        }
    ],
    "capture audit": [
        {"service": "", "topic": "", "written": 0, "arrived": 0, "repeated": 0, "missing": 0, "certain": True}
    ],
    "capture re-emit": {"service": "", "messages": 0, "written": True, "reason": ""},
    "capture recover": {**CAPTURED, "slot_made": False, "written": 0, "skipped": 0},
    "capture skip": {**CAPTURED, "slot_made": False, "written": 0, "skipped": 0},
    "capture skipped": [
        {
            "service": "",
            "id": "",
            "topic": "",
            "key": "",
            "type": "",
            "payload_bytes": 0,
            "cause": "",
            "actor": "",
            "reason": "",
            "skipped_at": "",
        }
    ],
    "positions list": [POSITION],
    "positions accept": POSITION_DECISION,
    "positions rewrite": {
        "application": "",
        "changelog": "",
        "found": "",
        "keys": 0,
        "records": 0,
        "actor": "",
        "reason": "",
        "done": True,
    },
    # Dead letters
    "dead list": [
        {
            "topic": "",
            "application": "",
            "state": "",
            "kind": "",
            "error": "",
            "cause": "",
            "fingerprint": "",
            "dead": 0,
            "parked": 0,
            "first": "",
            "last": "",
            "example": "0:0",
        }
    ],
    "dead show": [
        {
            "topic": "",
            "position": "0:0",
            "state": "",
            "settled": {"by": "", "at": "", "reason": ""},
            "application": "",
            "kind": "",
            "error": "",
            "cause": "",
            "fingerprint": "",
            "attempts": 0,
            "died_at": "",
            "origin": "",
            "written_at": "",
            "key": None,
            "headers": {},
            "value": {},
            "follows": {"topic": "", "position": "0:0"},
            "parked": [{"topic": "", "position": "0:0", "origin": ""}],
            "next": [""],
        }
    ],
    "dead redrive": LETTERS_DONE,
    "dead drop": LETTERS_DONE,
    "dead release": LETTERS_DONE,
    # Views
    "views list": [{"view": "", "published": 0, "built": [0], "in_project": [0]}],
    "views status": [
        {
            "view": "",
            "version": 0,
            "state": "",
            "published": True,
            "in_project": True,
            "workers": 0,
            "rows": 0,
            "read": 0,
            "lag": 0,
            "offsets": {"order.events[0]": 0},
            "advice": None,
        }
    ],
    "views build": {
        "view": "",
        "version": 0,
        "from": "topic",
        "records": 0,
        "expired": {},
        "workers": 0,
        "rows": 0,
        "done": True,
    },
    "views diff": {
        "view": "",
        "old": 0,
        "new": 0,
        "same": True,
        "equal": 0,
        "different": 0,
        "only_old": 0,
        "only_new": 0,
        "by_column": {},
        "columns_only_old": [""],
        "columns_only_new": [""],
        "left_out": 0,
        "samples": [{"key": "", "kind": "", "columns": {}}],
    },
    "views promote": {**VERSION_DECISION, "workers": 0},
    "views rollback": {**VERSION_DECISION, "workers": 0},
    "views drop": {**VERSION_DECISION, "rows": 0},
    # Replays
    "replay plan": PLAN,
    "replay run": {"replay_id": "", "records": 0, "sent": 0, "offsets_left": 0, "done": True},
    "replay list": [REPLAY],
    "replay show": {**REPLAY, "offsets_left": 0, "plan": PLAN},
    "replay shadow": {
        "saga": "",
        "instances": 0,
        "same": 0,
        "different": 0,
        "possibly": 0,
        "fails": 0,
        "left_out": {},
        "endings": [{}],
        "groups": [{}],
        "different_instances": [
            {
                "saga_id": "",
                "key": "",
                "verdict": "",
                "was": "",
                "becomes": "",
                "at": "",
                "ended": "",
                "would_end": [""],
                "explored": 0,
                "explored_all": True,
            }
        ],
    },
}

OTHERWISE: dict[str, str] = {
    "contracts generate": "with `--check` the list is `stale`",
    "contracts import": "with `--dry-run` the list is `would_be_written`",
    "contracts test": "a finding has `place`, `unaffected`, `sample`, `file`, `line` and `waived_because`, too, where "
    "it has them; so have those of `check`, `diff` and `can-deploy`",
    "migrate": "with `--check` it is `pending`",
    "saga check": "the page *What saga check proves* says what each field means",
    "saga diagram": "with `--form svg` it is `svg`",
    "saga history": "without what the input carried",
    "saga list": "with `--count`: `saga`, `version`, `status` and `instances`",
    "saga show": "with `--at` or `--step`: `state`, `later` (how many steps came after) and `steps`, entries of the "
    "history with `number`, `offset` and `changes`",
    "saga retry": "with `--dry-run`: the request with `refusal`, `status_before`, `status_after`, `sends` and "
    "`changes`; so for the other verbs that ask a saga",
    "saga upgrade": "with `--drain`: a list with `saga_id`, `key`, `status`, `waits_for`, `under_new` and `because`; "
    "with `--apply`: a list as that of `saga retry`, with `version` in place of step and item",
    "dead redrive": "with `--dry-run`: a list with `topic`, `position`, `application`, `origin` and `would_be`; so for "
    "`drop` and `release`",
    "run": "without a name: the names of the workers",
    "views promote": "`workers` fold the version that readers see then; with `--dry-run` also `lag`",
    "capture recover": "without `slot_made`, `written` and `skipped` where nothing was done",
}
