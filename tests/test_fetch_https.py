"""One body over real TLS from a server that is slow, broken or hostile."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetching import LOOPBACK, QUICK, Basket, allowing, at, fetched
from https_server import Answer, Behaviour, HttpsServer, Request, file, head, in_turn, redirects, says
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.fetch.addresses import LOCAL
from agent.fetch.errors import CalledOff, FetchError, Interrupted, NotFetched
from agent.fetch.fetch import fetch
from agent.fetch.network import Network
from agent.fetch.place import Rules
from benchmarks.certificates import Authority

BODY = os.urandom(300_000)
HERE = Network(patience=QUICK)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server", hosts=["data.example"])


@pytest.fixture
def server(certificate: tuple[Path, Path]) -> Iterator[HttpsServer]:
    with HttpsServer(certificate, {"/x": file(BODY)}) as server:
        yield server


@pytest.fixture
def rules(server: HttpsServer, authority: Authority) -> Rules:
    hosts = [f"{host}:{server.port}" for host in (LOOPBACK, "localhost", "data.example", "other.example")]
    return allowing(*hosts, ca_file=authority.path)


def refused(url: str, rules: Rules, basket: Basket | None = None, network: Network = HERE) -> str:
    with pytest.raises(NotFetched) as error:
        fetched(url, rules, basket or Basket(), network)
    return error.value.text


def gave_up(url: str, rules: Rules, **patience: float) -> str:
    with pytest.raises(Interrupted) as error:
        fetched(url, rules, Basket(), HERE, **patience)
    return error.value.text


def test_a_body_arrives_whole(server: HttpsServer, rules: Rules) -> None:
    basket = fetched(server.url("/x?sig=1"), rules, Basket(), HERE)
    assert basket.body == BODY
    (request,) = server.requests
    assert request.target == "/x?sig=1"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer"} & set(request.headers)


# Connections


def test_the_name_is_resolved_once_and_that_address_is_connected_to(
    server: HttpsServer, rules: Rules
) -> None:
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        asked.append(host)
        return [(socket.AF_INET, ("127.0.0.1" if len(asked) == 1 else "127.0.0.99", port))]

    network = Network(resolve=rebinding, patience=QUICK)
    assert fetched(server.url("/x", "data.example"), rules, Basket(), network).body == BODY
    assert asked == ["data.example"]


def test_an_address_that_does_not_answer_gives_way_to_the_next(server: HttpsServer, rules: Rules) -> None:
    network = at("127.0.0.99", LOOPBACK)
    assert fetched(server.url("/x", "data.example"), rules, Basket(), network).body == BODY


def test_a_private_address_is_not_connected_to(server: HttpsServer, authority: Authority) -> None:
    rules = allowing(f"127.0.0.1:{server.port}", private_networks=False, ca_file=authority.path)
    assert "127.0.0.1 (this computer)" in refused(server.url("/x"), rules)
    assert server.connections == 0


def test_no_proxy_of_the_environment_is_used(
    server: HttpsServer, rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetched(server.url("/x"), rules, Basket(), HERE).body == BODY


def test_a_certificate_of_another_name_is_not_trusted(server: HttpsServer, rules: Rules) -> None:
    text = refused(server.url("/x", "other.example"), rules, network=at(LOOPBACK))
    assert "certificate is not trusted" in text
    assert "Hostname mismatch" in text
    assert server.requests == []


def test_a_certificate_of_a_stranger_is_not_trusted(
    server: HttpsServer, rules: Rules, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    rules = Rules(rules.key, rules.hosts, (), private_networks=True, ca_file=stranger.path)
    assert "certificate is not trusted" in refused(server.url("/x"), rules)


def test_a_certificate_that_is_not_valid_yet_may_be_once_the_cars_clock_is_right(
    authority: Authority,
) -> None:
    with HttpsServer(authority.issue("early", days=(1.0, 2.0)), {"/x": file(BODY)}) as server:
        rules = allowing(f"127.0.0.1:{server.port}", ca_file=authority.path)
        assert "not yet valid" in gave_up(server.url("/x"), rules)


def test_tls_1_1_is_not_spoken(server: HttpsServer, rules: Rules) -> None:
    server._context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server._context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert "given up after 3 tries" in gave_up(server.url("/x"), rules)
    assert server.requests == []


def test_a_server_that_is_down_is_tried_again_and_named_without_its_query(rules: Rules) -> None:
    with socket.create_server((LOOPBACK, 0)) as closed:
        port = closed.getsockname()[1]
    rules = allowing(f"127.0.0.1:{port}")
    text = gave_up(f"https://127.0.0.1:{port}/x?sig=secret", rules)
    assert (
        text
        == f"https://127.0.0.1:{port}/x: the connection failed (Connection refused); given up after 3 tries"
    )


def test_a_server_that_never_shakes_hands_is_not_waited_for() -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        port = silent.getsockname()[1]
        text = gave_up(f"https://127.0.0.1:{port}/x", allowing(f"127.0.0.1:{port}"), stall_s=0.2, tries=1)
    assert "no byte came or went for 0.2 s" in text


# Redirects


def test_redirects_are_followed_within_what_is_allowed(server: HttpsServer, rules: Rules) -> None:
    server.behave |= {
        "/1": redirects("/2"),
        "/2": redirects("3?q=1"),
        "/3": redirects(server.url("/x"), "308 Moved"),
    }
    assert fetched(server.url("/1"), rules, Basket(), HERE).body == BODY
    assert [request.target for request in server.requests] == ["/1", "/2", "/3?q=1", "/x"]


def test_a_fourth_redirect_is_not_followed(server: HttpsServer, rules: Rules) -> None:
    server.behave["/1"] = redirects("/1")
    assert "redirected more than 3 times" in refused(server.url("/1"), rules)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("https://169.254.169.254/latest/meta-data/", "169.254.169.254 is not in inputs.hosts"),
        ("http://127.0.0.1/x", "http is not taken"),
        ("file:///etc/passwd", "in no folder"),
        ("//evil.example/x", "evil.example is not in inputs.hosts"),
        ("https://user:pw@data.example/", "credentials"),
        ("gopher://data.example/", "gopher is not taken"),
        ("", "redirected more than 3 times"),
        ("https://[", "redirected to 'https://[': Invalid IPv6 URL"),
    ],
)
def test_a_redirect_is_judged_like_a_first_address(
    server: HttpsServer, rules: Rules, location: str, why: str
) -> None:
    server.behave["/1"] = redirects(location)
    assert why in refused(server.url("/1"), rules)
    assert {request.target for request in server.requests} == {"/1"}


def test_a_redirect_to_a_name_with_a_private_address_is_refused(
    server: HttpsServer, authority: Authority
) -> None:
    """The source of models may redirect anywhere: only the address stands between it and a metadata service."""
    server.behave["/1"] = redirects("https://metadata.example/latest/")
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        asked.append(host)
        return [(socket.AF_INET, (LOOPBACK if host == "data.example" else "169.254.169.254", port))]

    rules = Rules("models", private_networks=False, ca_file=authority.path)
    network = Network(resolve=resolve, patience=QUICK)
    with pytest.MonkeyPatch.context() as world:
        world.setattr("agent.fetch.addresses.LOCAL", without_loopback())
        text = refused(server.url("/1", "data.example"), rules, network=network)
    assert asked == ["data.example", "metadata.example"]
    assert "169.254.169.254 (link-local, where metadata services are)" in text


def without_loopback() -> dict[object, str]:
    """The world as it is for a server on the open internet: this one is on 127.0.0.1."""
    return {network: what for network, what in LOCAL.items() if what != "this computer"}


# Breaks


def test_a_cut_body_is_gone_on_with(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = in_turn(file(BODY, stop_after=100_000), file(BODY, stop_after=50_000), file(BODY))
    assert fetched(server.url("/x"), rules, Basket(), HERE).body == BODY
    assert [request.begin for request in server.requests] == [0, 100_000, 150_000]
    assert server.requests[1].headers["if-range"] == '"v1"'


def test_another_version_after_a_break_starts_over(server: HttpsServer, rules: Rules) -> None:
    other = os.urandom(200_000)
    server.behave["/x"] = in_turn(file(BODY, stop_after=100_000), file(other, etag='"v2"'))
    assert fetched(server.url("/x"), rules, Basket(), HERE).body == other


def test_a_weak_etag_is_nothing_to_go_on_from(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = in_turn(file(BODY, etag='W/"v1"', stop_after=100_000), file(BODY, etag='W/"v1"'))
    assert fetched(server.url("/x"), rules, Basket(), HERE).body == BODY
    assert "range" not in server.requests[1].headers


@pytest.mark.parametrize(
    ("age", "begin"), [("Wed, 21 Oct 2026 07:28:00 GMT", 10), ("Wed, 21 Oct 2026 07:30:00 GMT", 0)]
)
def test_a_date_names_a_version_only_if_it_is_past(
    server: HttpsServer, rules: Rules, age: str, begin: int
) -> None:
    dated = (f"Last-Modified: {age}", "Date: Wed, 21 Oct 2026 07:30:00 GMT")
    part = says("206 Partial Content", "Content-Range: bytes 10-19/20", "Content-Length: 10", body=b"b" * 10)
    whole = says("200 OK", "Content-Length: 20", body=b"a" * 10 + b"b" * 10)
    cut = says("200 OK", "Content-Length: 20", *dated, body=b"a" * 10)
    server.behave["/x"] = in_turn(cut, part if begin else whole)
    assert fetched(server.url("/x"), rules, Basket(), HERE).body == b"a" * 10 + b"b" * 10
    assert server.requests[1].begin == begin


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Range: bytes 0-99999/300000",),
        ("Content-Range: bytes 100001-299999/300000",),
        ("Content-Range: bytes 100000-299999/400000",),
        ("Content-Range: bytes 100000-299998/300000",),
        ("Content-Range: bytes 100000-299999/*",),
        ("Content-Range: lines 100000-299999/300000",),
        (),
        ("Content-Range: bytes 100000-299999/300000", 'ETag: "v2"'),
    ],
)
def test_a_part_that_was_not_asked_for_is_refused(
    server: HttpsServer, rules: Rules, lines: tuple[str, ...]
) -> None:
    wrong = says("206 Partial Content", "Content-Length: 200000", *lines, body=BODY[100_000:])
    server.behave["/x"] = in_turn(file(BODY, stop_after=100_000), wrong)
    assert "came" in refused(server.url("/x"), rules)


def test_a_part_where_the_whole_was_asked_for_is_refused(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = says(
        "206 Partial Content", "Content-Range: bytes 5-9/10", "Content-Length: 5", body=b"56789"
    )
    assert "206" in refused(server.url("/x"), rules)


def test_a_server_that_forgot_the_file_starts_over(server: HttpsServer, rules: Rules) -> None:
    gone = says("416 Range Not Satisfiable", "Content-Length: 0")
    server.behave["/x"] = in_turn(file(BODY, stop_after=100_000), gone, file(BODY))
    assert fetched(server.url("/x"), rules, Basket(), HERE).body == BODY
    assert ["range" in request.headers for request in server.requests] == [False, True, False]


def test_a_line_that_breaks_all_the_time_is_not_tried_for_ever(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = file(BODY, stop_after=1)
    assert "the body ended after 3 of 300000 bytes; given up after 3 tries" in gave_up(
        server.url("/x"), rules
    )


def test_tries_count_anew_where_the_last_one_brought_something(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = file(BODY, stop_after=50_000)
    assert fetched(server.url("/x"), rules, Basket(), HERE, progress_bytes=50_000).body == BODY
    assert server.connections == 6


# Sizes


def test_a_body_that_is_not_as_large_as_the_inputs_is_refused_before_its_first_byte(
    server: HttpsServer, rules: Rules
) -> None:
    for wanted in (len(BODY) - 1, len(BODY) + 1):
        basket = Basket(wanted)
        assert "300000 bytes" in refused(server.url("/x"), rules, basket)
        assert basket.nbytes == 0


def chunked(*sizes: int, end: bytes = b"0\r\n\r\n") -> Behaviour:
    def answer(_: Request) -> Answer:
        yield head("200 OK", "Transfer-Encoding: chunked")
        for size in sizes:
            yield f"{size:x}\r\n".encode() + bytes(size) + b"\r\n"
        yield end

    return answer


def test_a_chunked_body_of_the_right_size_arrives(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = chunked(1000, 234)
    assert fetched(server.url("/x"), rules, Basket(1234), HERE).body == bytes(1234)


def test_an_endless_body_is_left_at_its_first_byte_too_many(server: HttpsServer, rules: Rules) -> None:
    def endless(_: Request) -> Answer:
        yield head("200 OK", "Transfer-Encoding: chunked")
        while not server.stopping.is_set():
            yield b"1000\r\n" + bytes(0x1000) + b"\r\n"

    server.behave["/x"] = endless
    basket = Basket(100_000)
    assert "does not end after the 100000 bytes" in refused(server.url("/x"), rules, basket)
    assert basket.nbytes <= 100_000


def test_a_chunked_body_that_ends_early_is_not_the_one(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = chunked(1000)
    assert "ended after 1000 of 1234 bytes" in refused(server.url("/x"), rules, Basket(1234))


def test_a_body_up_to_the_end_of_the_connection_is_bounded_too(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = says("200 OK", body=BODY)
    assert fetched(server.url("/x"), rules, Basket(len(BODY)), HERE).body == BODY
    assert "does not end" in refused(server.url("/x"), rules, Basket(len(BODY) - 1))


@pytest.mark.parametrize(
    "lines", [("Content-Length: -5",), ("Content-Length: 5", "Content-Length: 6"), ("Content-Length: 5x",)]
)
def test_a_length_that_is_none_is_refused(server: HttpsServer, rules: Rules, lines: tuple[str, ...]) -> None:
    server.behave["/x"] = says("200 OK", *lines, body=b"12345")
    assert "no one length" in refused(server.url("/x"), rules)


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_a_body_that_would_have_to_be_unpacked_is_refused(
    server: HttpsServer, rules: Rules, coding: str
) -> None:
    server.behave["/x"] = says("200 OK", f"Content-Encoding: {coding}", "Content-Length: 5", body=b"12345")
    assert "serve it as it is" in refused(server.url("/x"), rules)


# Patience


def drip(first: bytes, every_s: float, server: HttpsServer, then: bytes = b"x") -> Behaviour:
    def answer(_: Request) -> Answer:
        yield first
        while not server.stopping.wait(every_s):
            yield then

    return answer


@pytest.mark.parametrize("first", [head("200 OK", "Content-Length: 300000"), b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_a_slow_loris_is_left_in_body_and_headers_alike(
    server: HttpsServer, rules: Rules, first: bytes
) -> None:
    server.behave["/x"] = drip(first, 0.05, server)
    text = gave_up(server.url("/x"), rules, window_s=0.6, window_bytes=1000, tries=1)
    assert "1000 are the least" in text


def test_silence_in_the_body_is_not_waited_for(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = drip(head("200 OK", "Content-Length: 300000") + b"abc", 60, server)
    assert "no byte came or went" in gave_up(server.url("/x"), rules, stall_s=0.2, tries=1)


@pytest.mark.parametrize(
    "more", [b"HTTP/1.1 100 Continue\r\nX: " + b"x" * 60_000 + b"\r\n\r\n", b"X: 1\r\n" * 10_000]
)
def test_headers_without_end_are_left(server: HttpsServer, rules: Rules, more: bytes) -> None:
    server.behave["/x"] = drip(b"" if b"100" in more[:20] else b"HTTP/1.1 200 OK\r\n", 0.0, server, more)
    assert refused(server.url("/x"), rules)


def test_trailers_without_end_are_left(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = drip(
        head("200 OK", "Transfer-Encoding: chunked") + b"2\r\nab\r\n0\r\n", 0.0, server, b"X: 1\r\n" * 10_000
    )
    assert "far more around the body" in refused(server.url("/x"), rules, Basket(2))


def test_a_fetch_that_is_called_off_ends_at_once(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = drip(head("200 OK", "Content-Length: 300000") + b"abc", 60, server)
    off, ended = threading.Event(), threading.Event()
    patient = Network()

    def work() -> None:
        with pytest.raises(CalledOff):
            fetch(server.url("/x"), rules, Basket(), off, patient)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    off.set()
    assert ended.wait(5)
    thread.join()


# Answers


@pytest.mark.parametrize(
    "status",
    [
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "410 Gone",
        "501 No",
        "204 No Content",
    ],
)
def test_what_will_not_change_is_asked_once(server: HttpsServer, rules: Rules, status: str) -> None:
    server.behave["/x"] = says(status, "Content-Length: 0")
    assert refused(server.url("/x?sig=secret"), rules) == f"{server.url('/x')}: answered {status[:3]}"
    assert server.connections == 1


@pytest.mark.parametrize(
    "status", ["500 Oops", "502 Bad Gateway", "503 Busy", "429 Slow down", "408 Timeout"]
)
def test_trouble_that_passes_is_waited_for(server: HttpsServer, rules: Rules, status: str) -> None:
    server.behave["/x"] = in_turn(says(status, "Content-Length: 0"), file(BODY))
    assert fetched(server.url("/x"), rules, Basket(), HERE).body == BODY


def test_a_server_that_asks_for_patience_gets_it(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = in_turn(says("503 Busy", "Retry-After: 1", "Content-Length: 0"), file(BODY))
    begun = time.monotonic()
    fetched(server.url("/x"), rules, Basket(), HERE)
    assert time.monotonic() - begun >= 1


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = says("429 Slow down", "Retry-After: 3600", "Content-Length: 0")
    assert "answered 429, and asks for 3600 s of patience; given up after 1 tries" in gave_up(
        server.url("/x"), rules
    )


def test_what_is_no_http_is_refused(server: HttpsServer, rules: Rules) -> None:
    server.behave["/x"] = lambda _: iter([b"SSH-2.0-OpenSSH_9.2\r\n"])
    assert "does not speak HTTP" in refused(server.url("/x"), rules)


PIECES = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 206 Partial Content\r\n",
    b"HTTP/1.1 302 Found\r\n",
    b"HTTP/1.1 503 Busy\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/0.9 99999 \r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: \xb2\r\n",
    b"Content-Length: " + b"9" * 5000 + b"\r\n",
    b"Content-Range: bytes 0-4/5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Location: https://[\r\n",
    b"Location: \xff\xfe\r\n",
    b"Retry-After: \xb9\r\n",
    b"Retry-After: Wed, 99 Foo 20266 07:28:00 +99999999\r\n",
    b"Last-Modified: Mon, 01 Jan 0001 00:00:00 +2359\r\n",
    b"Date: Fri, 31 Dec 9999 23:59:59 -2359\r\n",
    b'ETag: "\x00"\r\n',
    b" folded\r\n",
    b": nameless\r\n",
    b"\r\n",
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"-5\r\n",
    b"f" * 40 + b"\r\n",
    b"abcde",
    b"\x00",
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=12))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_server_says_it_is_a_body_or_one_of_our_errors(
    server: HttpsServer, rules: Rules, pieces: list[bytes]
) -> None:
    server.behave["/x"] = lambda _: iter([b"".join(pieces)])
    basket = Basket(5)
    try:
        fetched(server.url("/x"), rules, basket, HERE, tries=1)
    except FetchError:
        return
    assert basket.nbytes == 5
