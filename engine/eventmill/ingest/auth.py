"""Write keys: by HTTP Basic user name, by Bearer token, or in the body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from eventmill.core.errors import ConfigError


def key_of_header(authorization: str | None) -> str | None:
    """The key that an Authorization header carries; ``None`` without one, empty when it cannot be read."""
    if authorization is None:
        return None
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return _utf8(credentials.strip())
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[0]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _utf8(text: str) -> str:
    # Headers are read as Latin-1; a key beyond ASCII comes in UTF-8, as in a body.
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


class WriteKeys:
    """The accepted keys. With none configured any key, or none, will do. Raises ``ConfigError`` for an empty key."""

    def __init__(self, keys: Iterable[str]) -> None:
        given = list(keys)
        if not all(key.strip() for key in given):
            raise ConfigError("a write key is empty, so that anyone could send it; leave it out or give it a value")
        self._digests = [hashlib.sha256(key.encode()).digest() for key in given]

    @property
    def open(self) -> bool:
        """Whether every key is accepted."""
        return not self._digests

    def accepts(self, key: str | None) -> bool:
        """Compares digests with every key in constant time, so that neither content nor length leaks."""
        if self.open:
            return True
        if key is None:
            return False
        digest = hashlib.sha256(key.encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)
