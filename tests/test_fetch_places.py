"""Which URLs may be fetched, as far as a URL alone tells."""

from pathlib import Path

import pytest
from fetching import allowing
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.fetch.errors import NotFetched
from agent.fetch.place import HostPattern, Place, Rules, checked, shown

RULES = allowing("data.example", "*.cdn.example", "depot.example:8443", "[2606:4700::1]")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://data.example/a/b?sig=1", Place("data.example", 443, "/a/b?sig=1")),
        ("https://DATA.example:443", Place("data.example", 443, "/")),
        ("HTTPS://a.b.cdn.example/x", Place("a.b.cdn.example", 443, "/x")),
        ("https://depot.example:8443/x", Place("depot.example", 8443, "/x")),
        ("https://[2606:4700::1]/x", Place("2606:4700::1", 443, "/x")),
    ],
)
def test_an_allowed_host_with_its_port_is_taken(url: str, place: Place) -> None:
    assert checked(url, RULES) == place


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://data.example/x", "http is not taken"),
        ("ftp://data.example/x", "ftp is not taken"),
        ("data.example/x", "no scheme"),
        ("https://other.example/x", "other.example is not in inputs.hosts"),
        ("https://cdn.example/x", "cdn.example is not in inputs.hosts"),
        ("https://evilcdn.example/x", "not in inputs.hosts"),
        ("https://data.example.evil/x", "not in inputs.hosts"),
        ("https://data.example./x", "no host name"),
        ("https://data.example:8443/x", "data.example:8443 is not in"),
        ("https://data.example:0/x", "not in inputs.hosts"),
        ("https://depot.example/x", "not in inputs.hosts"),
        ("https://data.example:99999/x", "Port out of range"),
        ("https://user:secret@data.example/x", "credentials"),
        ("https://data.example@evil.example/x", "credentials"),
        ("https://data.example/x#part", "fragment"),
        ("https://data.example/x#", "fragment"),
        ("https://data.example/a b", "character"),
        ("https://data.example\\@evil.example/", "character"),
        ("https://data.exam\tple/x", "character"),
        ("https://data.example/x\r\nHost: evil", "character"),
        ("https://data.example/\u202e", "character"),
        ("https://d\u0430ta.example/x", "character"),
        ("https://%64ata.example/x", "no host name"),
        ("https:///x", "no host name"),
        ("https://[::1/x", "Invalid IPv6"),
        ("https://[fe80::1%25eth0]/x", "no host name"),
        ("file:///etc/passwd", "in no folder of inputs.file_dirs"),
        ("file://host/data/x", "should be file:///"),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_reason(url: str, why: str) -> None:
    with pytest.raises(NotFetched) as refused:
        checked(url, RULES)
    assert why in refused.value.text
    assert "secret" not in refused.value.text


@pytest.mark.parametrize(
    "url",
    ["file:///data/../etc/passwd", "file:///data/%2e%2e/etc/passwd", "file:///database", "file:///data%00/x"],
)
def test_a_path_stays_in_its_folder(url: str) -> None:
    rules = Rules("inputs", hosts=(), folders=(Path("/data"),))
    assert checked("file:///data/a%20b", rules) == Path("/data/a b")
    with pytest.raises(NotFetched):
        checked(url, rules)


def test_a_query_may_hold_a_signature_and_is_never_shown() -> None:
    assert shown("https://data.example/x?X-Signature=secret#f") == "https://data.example/x"
    assert len(shown("https://data.example/" + "x" * 4000)) < 150


@pytest.mark.parametrize(
    "text", ["", "*", "*.", "https://a", "a/b", "A.example", "a..b", "*.*.a", "a:b", "*.[::1]", "a b"]
)
def test_a_host_that_could_mean_anything_is_no_entry(text: str) -> None:
    with pytest.raises(ValueError, match="should be a host name"):
        HostPattern.of(text)


URLS = st.lists(
    st.one_of(
        st.sampled_from(
            ["https:", "file:", "//", "/", "data.example", "[", "]", ":", "@", "%", "..", "?", "#", "443"]
        ),
        st.text(max_size=5),
    )
).map("".join)


@given(URLS)
@settings(max_examples=500)
def test_whatever_is_written_it_is_an_allowed_place_or_refused(url: str) -> None:
    try:
        place = checked(url, RULES)
    except NotFetched:
        return
    assert isinstance(place, Place)
    assert (place.host, place.port) == ("data.example", 443)
