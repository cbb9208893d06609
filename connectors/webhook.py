"""POST to an address of somebody else's; the only file that speaks HTTP outwards.

A redirect is not followed: it would turn the POST into a GET, and carry the body to a place nobody named.
"""

from __future__ import annotations

import hashlib
import hmac
from http.client import HTTPException
from typing import Any, Final, final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

SIGNATURE: Final = "X-Hub-Signature-256"  # the header that GitHub made known; receivers can check it


class Undelivered(Exception):
    """The receiver did not take it; the same may be sent again later."""


@final
class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Leave the answer as it is: an error, by its status."""


@final
class Webhook:
    """One address; `timeout_s` bounds each step of a delivery, from finding the host to its answer."""

    def __init__(
        self, url: str, *, media_type: str, secret: str | None = None, timeout_s: float = 5.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = "a webhook is an address that begins with https:// or http://"
            raise ValueError(msg)
        self.place = f"{parts.scheme}://{parts.hostname}"  # what may be shown: the rest is often a secret
        self._url, self._media_type, self._timeout_s = url, media_type, timeout_s
        self._secret = None if secret is None else secret.encode()
        self._opener = build_opener(_NoRedirect)

    def post(self, body: bytes) -> None:
        """Deliver, or raise Undelivered: only an answer of 200 to 299 says that it was taken."""
        headers = {"Content-Type": self._media_type, "User-Agent": "priorflow"}
        if self._secret is not None:
            headers[SIGNATURE] = signature(self._secret, body)
        request = Request(self._url, body, headers, method="POST")  # noqa: S310 - the scheme was checked
        try:
            with self._opener.open(request, timeout=self._timeout_s):
                return
        except HTTPError as refused:
            with refused:
                msg = f"webhook {self.place} answered {refused.code}"
            raise Undelivered(msg) from refused
        except (OSError, HTTPException) as away:
            why = getattr(away, "reason", away)
            msg = f"webhook {self.place} cannot be reached: {why or type(away).__name__}"
            raise Undelivered(msg) from away


def signature(secret: bytes, body: bytes) -> str:
    """Return what the receiver computes as well: sha256= and the HMAC-SHA256 of the body, in hexadecimal."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
