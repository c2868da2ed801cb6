"""How a fetch can fail. Each text names what, the URL without its query, the value, the limit and what to do."""


class FetchError(Exception):
    """Bytes that could not be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class NotFetched(FetchError):  # noqa: N818 - says what happened, not that somebody erred
    """It would fail again: the place is not allowed, does not have it, or sends something else."""


class TooLarge(FetchError):  # noqa: N818 - as above
    """The body is larger than what may be kept."""


class Unwritable(FetchError):  # noqa: N818 - as above
    """The disk here does not take it."""


class Interrupted(FetchError):  # noqa: N818 - as above
    """It may pass: no network, a connection that was cut or is too slow, a server in trouble.

    `retry_after_s`: what the server asks for, where it does.
    """

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class CalledOff(FetchError):  # noqa: N818 - as above
    """Nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__("the fetch was called off")
