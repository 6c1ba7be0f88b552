"""What only Linux has is used in few files, each with what other systems do instead."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINUX_ONLY = (
    r"\bprctl\b|\bcapset\b|pidfd|/proc\b|O_PATH\b|\bsched_\w+\(|\bmemfd_|\bsignalfd\b|\bepoll\b|\binotify\b|\bsetns\b"
    r"|\bunshare\b|SO_PEERCRED|posix_fadvise|\bos\.sendfile|waitid\(|/sys/(fs|kernel|class)\b"
)
# File -> how it goes on elsewhere; tests/unit/stack/test_without_linux.py runs that.
FALLBACKS = {
    "towpath/stack/supervisor/launch.py": "HAS_PRCTL",
    "towpath/stack/supervisor/ends.py": "HAS_PIDFD",
    "towpath/stream/engine/slot.py": "_started_elsewhere",
}


def test_what_only_linux_has_is_used_with_a_fallback() -> None:
    """In code, not in what is said about it."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("towpath/**/*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(LINUX_ONLY, line.partition("#")[0])
    }
    assert found == set(FALLBACKS)
    for path, word in FALLBACKS.items():
        assert (ROOT / path).read_text(encoding="utf-8").count(word) > 1
