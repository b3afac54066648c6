"""Addresses of services in what people read: without the user and the password that may be in them.

without_credentials("MLflow at http://me:word@host:5000 …")     → "MLflow at http://…@host:5000 …"
split_credentials("http://me:word@host:5000")                   → "http://host:5000", ("me", "word")
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

# Up to the last @ of the word: a password may hold one.
_USER = re.compile(r"(?<=://)(?:[^\s/@:]*:\S*|[^\s/@]+)@")
_QUERY = re.compile(r"(?i)([?&](?:password|passwd|token|key|api_?key)=)[^&\s'\"]+")


def without_credentials(text: str) -> str:
    """A text with every ``user:password@`` of an address, and every password in its query, as ``…``."""
    return _QUERY.sub(r"\1…", _USER.sub("…@", text))


def split_credentials(address: str) -> tuple[str, tuple[str, str] | None]:
    """An address without user and password, and both, decoded; ``None`` where it has none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address, None
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return address, None
    name, _, word = user.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(name), unquote(word))
