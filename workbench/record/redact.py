"""Removes secrets from values before they are written: by the name of a key, by known patterns, by the values of
this process's secret environment variables. Plain values in, the same values with `[redacted]` out.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"
_WORD = (
    r"(?:api[_-]?key|access[_-]?key|private[_-]?key|secret|password|passwd|authorization|credentials?"
    r"|(?:access|auth|bearer|hf|hub|api)[_-]?token)"
)
_SECRET_NAME = re.compile(rf"(?:^|[_-]){_WORD}$|^token$", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(
    r"(?:TOKEN|(?:^|_)KEY|APIKEY|KEY_ID|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.IGNORECASE
)
_PATTERNS = [
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\bwandb_v\d_[A-Za-z0-9_]{16,}"),
    # A wandb key is 40 hex digits, and so is a commit: only those after an assignment or a quote are redacted.
    re.compile(r"(?<=[=: \"'])[0-9a-f]{40}\b(?<!commit .{40})"),
]
_ASSIGNED = re.compile(rf"(?i)([A-Za-z0-9_-]*{_WORD}[\"']?\s*[=:]\s*[\"']?)([^\s\"',;&]+)")
_BEARER = re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}")
_HEADER = re.compile(r"(?i)(authorization[\"']?\s*[=:]\s*[\"']?(?:bearer|basic|token|digest)\s+)[^\s\"',;&]+")
_USER = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+@")
_QUERY = re.compile(
    r"(?i)([?&](?:[a-z0-9_-]*(?:token|secret|signature|password)|api[_-]?key|key|sig)=)[^\s&#\"']+"
)
_HASH_NAMES = re.compile(r"commit|revision|sha|hash|digest|git", re.IGNORECASE)


def redact(value: Any, key: str = "") -> Any:
    """A copy of plain JSON-like data without secrets. Values under secret-looking keys are replaced; texts are searched."""
    if isinstance(value, Mapping):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, key) for item in value]
    if isinstance(value, str):
        if value and _SECRET_NAME.search(key):
            return HIDDEN
        return redact_text(value, hashes=bool(_HASH_NAMES.search(key)))
    return value


def redact_text(text: str, hashes: bool = False) -> str:
    """`text` without secrets. `hashes`: bare 40-digit hexadecimal words are commits and stay."""
    for name, value in os.environ.items():
        if len(value) >= 8 and value in text and _SECRET_VARIABLE.search(name):
            text = text.replace(value, HIDDEN)
    for pattern in _PATTERNS[:-1] if hashes else _PATTERNS:
        text = pattern.sub(HIDDEN, text)
    # Headers go first: an assignment ends at a space, and would take "Bearer" for the secret.
    for pattern in (_HEADER, _BEARER, _QUERY, _ASSIGNED):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _USER.sub(rf"\1{HIDDEN}@", text)
