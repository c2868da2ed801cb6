"""What a server's answer says, before any of its body is taken (RFC 9110). Pure: no socket, no clock."""

import datetime as dt
import re
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPMessage
from typing import Final

from agent.fetch.errors import NotFetched

REDIRECTS: Final = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)
MAY_PASS: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]*"\Z')
CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z")
LENGTH: Final = re.compile(r"\d{1,18}\Z")


def refuse_encoded(headers: HTTPMessage) -> None:
    """Raise `NotFetched` for a body that would have to be unpacked: it may be a bomb, and it was not asked for."""
    coding = headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise NotFetched(f"the body is encoded with {coding[:40]!r}: serve it as it is")


def length(headers: HTTPMessage) -> int | None:
    """Bytes of the body as it is said, None where it is not; raises `NotFetched` for what is no length, or two."""
    said = set(headers.get_all("Content-Length") or ())
    if not said or "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    (first, *others) = said
    if others or not LENGTH.match(first):
        raise NotFetched(f"Content-Length {first[:40]!r} is no one length")
    return int(first)


def version(headers: HTTPMessage) -> str | None:
    """What a later part can be compared with: a strong ETag, else a date that is strong (RFC 9110, 8.8.2.2)."""
    etag = headers.get("ETag")
    if etag is not None:
        return etag if STRONG_ETAG.match(etag) else None
    changed = headers.get("Last-Modified", "")
    changed_at, at = _date(changed), _date(headers.get("Date", ""))
    strong = changed_at is not None and at is not None and at - changed_at >= dt.timedelta(seconds=1)
    return changed if strong else None


def check_part(headers: HTTPMessage, *, begin: int, size: int, version: str) -> None:
    """Raise `NotFetched` unless a 206 brings exactly bytes `[begin, size)` of that version."""
    told = headers.get("Content-Range", "")
    found = CONTENT_RANGE.match(told)
    if found is None or [int(each) for each in found.groups()] != [begin, size - 1, size]:
        raise NotFetched(f"bytes {begin}-{size - 1}/{size} were asked for, {told[:60] or 'no range'!r} came")
    etag = headers.get("ETag")
    if etag is not None and version.startswith('"') and etag != version:
        raise NotFetched(f"a part of another version came: ETag {etag[:60]!r} after {version[:60]!r}")


def retry_after_s(headers: HTTPMessage, now: dt.datetime) -> float | None:
    """Seconds that the server asks to be left alone, None where it does not say (RFC 9110, 10.2.3)."""
    told = headers.get("Retry-After", "")
    if told.isascii() and told.isdecimal() and len(told) < 10:
        return float(told)
    at = _date(told)
    return None if at is None else max(0.0, (at - now).total_seconds())


def _date(text: str) -> dt.datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)
