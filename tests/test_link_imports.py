"""The link takes of paho what it uses, and leaves the standard library as it was."""

import subprocess
import sys

PROGRAM = """
import sys
{first}
import agent.link
assert {http} is ("http.client" in sys.modules), "an HTTP client in a car that fetches nothing"
import urllib.request
assert urllib.request.getproxies is sys.modules["urllib.request"].getproxies
"""


def test_no_http_client_comes_with_the_link() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM.format(first="", http=False)], check=True)


def test_one_that_is_there_stays() -> None:
    subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first="import urllib.request", http=True)], check=True
    )
