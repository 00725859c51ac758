"""What is a secret, by its name or its form."""

from __future__ import annotations

import re
from itertools import pairwise

_WORDS = frozenset({"PASSWORD", "PASSWD", "PASSPHRASE", "TOKEN", "SECRET", "CREDENTIALS"})
_PAIRS = frozenset({("API", "KEY"), ("ACCESS", "KEY"), ("PRIVATE", "KEY"), ("AUTH", "KEY")})
IN_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:([^/\s@]+)@", re.IGNORECASE)
"""A password inside an address."""
LOOKS_LIKE_ONE = re.compile(
    r"(sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{12,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)
"""The form of a known provider's key."""

_RUN_TOGETHER = frozenset({"APIKEY", "ACCESSKEY", "PRIVATEKEY"})
_SAYS_WHERE = frozenset({"PATH", "FILE", "DIR", "URL", "NAME", "MODE", "TTL"})


def is_secret(name: str, value: str) -> bool:
    """By its name (`HF_TOKEN`, `OPENAI_API_KEY`) or by its value: the form of a known key, a
    password inside an address. The path of a file that holds one is none."""
    if not value:
        return False
    if IN_ADDRESS.search(value) or LOOKS_LIKE_ONE.search(value):
        return True
    if value.startswith(("/", "$(")) or value.lower() in ("true", "false"):
        return False
    words = [word for word in re.split(r"[^A-Z0-9]+", name.upper()) if word]
    if not words or words[-1] in _SAYS_WHERE:
        return False
    pairs = set(pairwise(words))
    return bool(set(words) & (_WORDS | _RUN_TOGETHER)) or bool(pairs & _PAIRS)
