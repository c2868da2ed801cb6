"""One body from wherever its URL leads."""

from pathlib import Path
from threading import Event

from agent.fetch import file_body
from agent.fetch.landing import Landing
from agent.fetch.network import Network
from agent.fetch.place import Rules, checked


def fetch(url: str, rules: Rules, landing: Landing, off: Event, network: Network) -> None:
    """Bring the whole body at `url` into `landing`; blocks, so it is called in a thread.

    Over https it goes on from what is in `landing` already, where the server says that it is of the same version.
    `off` ends it within a fraction of a second (a name server that does not answer: when the system gives up).
    Nothing is used before all of it is there and its hash is checked: one hash stands over the whole body, so no
    row of it could be trusted earlier. Raises a `FetchError`.
    """
    place = checked(url, rules)
    if isinstance(place, Path):
        file_body.read(place, rules.folders, landing, off)
    else:
        from agent.fetch import https_body  # noqa: PLC0415 - http.client is large, and a blocked car fetches nothing

        https_body.Download(place, rules, landing, off, network).run()
