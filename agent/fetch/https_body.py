"""One body over https: redirects judged hop by hop, broken connections gone on from where they broke.

The standard library's http.client, over a line of our own. A larger HTTP library would have its pool, retries,
redirects and decoders all switched off here, and does not let its caller bound the handshake and the headers.
"""

import contextlib
import datetime as dt
import http.client
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from threading import Event
from typing import Final
from urllib.parse import urljoin

from agent.fetch import answer
from agent.fetch.addresses import judged
from agent.fetch.errors import CalledOff, Interrupted, NotFetched
from agent.fetch.landing import Landing
from agent.fetch.line import HEAD_BYTES, Line, Pace, dialled
from agent.fetch.network import Network, Patience
from agent.fetch.place import Place, Rules, checked, shown

MOST_REDIRECTS: Final = 3
CHUNK_BYTES: Final = 65_536
CLOCK_MAY_BE_WRONG: Final = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and ..._HAS_EXPIRED: a car wakes with a wrong clock."""


class Download:
    """Brings what is at `place` into `landing`."""

    def __init__(self, place: Place, rules: Rules, landing: Landing, off: Event, network: Network) -> None:
        self._place = place
        self._rules = rules
        self._landing = landing
        self._off = off
        self._network = network

    def run(self) -> None:
        """Try until all of it is there. Raises a `FetchError`; `Interrupted` after the last try."""
        patience, tries = self._network.patience, 0
        while True:
            before = self._landing.nbytes
            try:
                self._follow()
            except Interrupted as trouble:
                progress = self._landing.nbytes - before >= patience.progress_bytes
                tries = 1 if progress else tries + 1
                wait_s = self._wait_s(trouble, tries, patience)
            else:
                return
            if self._off.wait(wait_s):
                raise CalledOff

    def _wait_s(self, trouble: Interrupted, tries: int, patience: Patience) -> float:
        """How long to wait for the next try; raises `trouble` when there is none."""
        asked_s = trouble.retry_after_s or 0.0
        if tries >= patience.tries or asked_s > patience.longest_asked_s:
            asks = f", and asks for {asked_s:g} s of patience" if asked_s else ""
            raise Interrupted(
                f"{self._place}: {trouble.text}{asks}; given up after {tries} tries"
            ) from trouble
        ceiling_s = min(patience.longest_wait_s, patience.first_wait_s * 2.0 ** (tries - 1))
        return asked_s + self._network.jitter() * ceiling_s

    def _follow(self) -> None:
        place = self._place
        for _ in range(MOST_REDIRECTS + 1):
            pace = Pace(self._network, self._off)
            with _in_one_line(place), self._asked(place, pace) as response:
                if response.status not in answer.REDIRECTS:
                    self._take(response, pace)
                    return
                location = response.headers.get("Location", "")
            place = self._next(place, location)
        raise NotFetched(f"{self._place}: redirected more than {MOST_REDIRECTS} times")

    def _next(self, place: Place, location: str) -> Place:
        """Judge where a redirect leads as a first address would be: scheme, host, and later its address."""
        try:
            onward = urljoin(place.url, location)
        except ValueError as error:  # a bracket that is never closed
            raise NotFetched(f"{place}: redirected to {shown(location)!r}: {error}") from error
        try:
            found = checked(onward, self._rules)
        except NotFetched as error:
            raise NotFetched(f"{place}: redirected to {error.text}") from error
        if not isinstance(found, Place):
            raise NotFetched(f"{place}: redirected to a file of this computer")
        return found

    @contextlib.contextmanager
    def _asked(self, place: Place, pace: Pace) -> Iterator[http.client.HTTPResponse]:
        headers = {"Host": place.authority, "Accept-Encoding": "identity", "User-Agent": "parkwatt"}
        if (version := self._landing.version) is not None:
            headers |= {"Range": f"bytes={self._landing.nbytes}-", "If-Range": version}
        connection = http.client.HTTPConnection(place.host, place.port)
        line = _line_to(place, self._rules, self._network, pace)
        with contextlib.ExitStack() as stack:
            stack.callback(line.hang_up)
            connection.sock = line  # http.client uses what stands here, and dials only where nothing does
            connection.request("GET", place.target, headers=headers)
            yield stack.enter_context(connection.getresponse())

    def _take(self, response: http.client.HTTPResponse, pace: Pace) -> None:
        landing, headers = self._landing, response.headers
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and landing.nbytes:
            landing.forget()
            raise Interrupted("the server does not go on from where it stopped")
        if response.status in answer.MAY_PASS:
            wait_s = answer.retry_after_s(headers, dt.datetime.now(dt.UTC))
            raise Interrupted(f"answered {response.status}", wait_s)
        if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise NotFetched(f"answered {response.status}")
        answer.refuse_encoded(headers)
        if response.status == HTTPStatus.OK:
            landing.begin(answer.length(headers), answer.version(headers))
        elif (version := landing.version) is not None:
            answer.check_part(headers, begin=landing.nbytes, size=landing.size, version=version)
        else:
            raise NotFetched("answered 206, and the whole was asked for")
        pace.allow(2 * (landing.size - landing.nbytes) + HEAD_BYTES)
        self._pour(response)

    def _pour(self, response: http.client.HTTPResponse) -> None:
        landing = self._landing
        while chunk := response.read1(CHUNK_BYTES):
            landing.take(chunk)
        if landing.nbytes < landing.size:
            text = f"the body ended after {landing.nbytes} of {landing.size} bytes"
            raise NotFetched(text) if response.chunked else Interrupted(text)


def reach(place: Place, rules: Rules, off: Event, network: Network) -> None:
    """Connect to the server of `place`, and ask for nothing. Raises a `FetchError`."""
    with _in_one_line(place):
        _line_to(place, rules, network, Pace(network, off)).hang_up()


def _line_to(place: Place, rules: Rules, network: Network, pace: Pace) -> Line:
    """A connection to the server that has the name, at an address that may be connected to."""
    addresses = judged(place.host, place.port, network.resolve, private_networks=rules.private_networks)
    context = ssl.create_default_context(cafile=rules.ca_file)  # TLS 1.2 is the least since Python 3.10
    context.set_alpn_protocols(["http/1.1"])
    return dialled(addresses, place.host, context, pace)


@contextlib.contextmanager
def _in_one_line(place: Place) -> Iterator[None]:
    """Every trouble with a place as an error of this package. What may pass is named with its place once it did not."""
    try:
        yield
    except NotFetched as error:
        raise NotFetched(f"{place}: {error.text}") from error
    except ssl.SSLCertVerificationError as error:
        text = f"its certificate is not trusted: {error.verify_message}"
        if error.verify_code in CLOCK_MAY_BE_WRONG:
            raise Interrupted(text) from error
        raise NotFetched(f"{place}: {text}; see ca_file") from error
    except (OSError, http.client.IncompleteRead) as error:
        raise Interrupted(f"the connection failed ({getattr(error, 'strerror', None) or error})") from error
    except http.client.HTTPException as error:
        raise NotFetched(
            f"{place}: does not speak HTTP: {str(error)[:80] or type(error).__name__}"
        ) from error
