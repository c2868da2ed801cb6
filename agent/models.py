"""The model cache: fetched by hash from `models.source`, checked, and kept where a later change cannot reach it."""

import asyncio
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from agent.fetch.errors import FetchError, Interrupted, NotFetched, TooLarge, Unwritable
from agent.fetch.fetch import fetch
from agent.fetch.network import LIVE, Network
from agent.fetch.thread import in_thread
from agent.model_files import ModelFiles
from agent.protocol.reasons import Reason
from agent.settings import ModelSettings


class ModelUnavailableError(Exception):
    """A model that cannot be given to a worker, with the wire's reason."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


@dataclass(slots=True)
class _Errand:
    """A fetch that is under way, and how many wait for it."""

    path: asyncio.Future[Path]
    off: threading.Event
    waiting: int = 0


class ModelCache:
    """Models from `{source}/{sha256}` in `cache_dir`. Lives on the event loop; files and network are for threads.

    A cached file is a copy of mode 0400: neither a hard link nor a later change of the source reaches it.
    """

    def __init__(self, settings: ModelSettings, network: Network = LIVE) -> None:
        self._settings = settings
        self._network = network
        self._files = ModelFiles(settings.cache_dir, settings.cache_max_bytes, settings.largest_bytes)
        self._errands: dict[str, _Errand] = {}

    def has(self, sha256: str) -> bool:
        """Whether the model is here, with the right bytes."""
        return self._files.has(sha256)

    def held(self, sha256: str) -> AbstractContextManager[Path]:
        """The file of a model, kept while it is being opened; raises `NotCached`, also where `has` said yes before."""
        return self._files.held(sha256)

    def resident(self) -> list[str]:
        """The hashes in the cache, least recently used first."""
        return self._files.resident()

    async def fetch(self, sha256: str) -> Path:
        """Have the model here: one fetch, however many ask for it. It ends when nobody waits for it any more.

        `sha256` is 64 lower-case hex digits, as the wire contract has checked. Raises `ModelUnavailableError`
        with 130 (the source does not have it), 131 (other bytes), 101 (too large), 1031 (the cache cannot be
        written) or 1032 (no way to the source now).
        """
        errand = self._errands.get(sha256) or self._sent_for(sha256)
        errand.waiting += 1
        try:
            return await asyncio.shield(errand.path)
        finally:
            errand.waiting -= 1
            if not errand.waiting:
                errand.off.set()
                self._forget(sha256, errand)

    def _sent_for(self, sha256: str) -> _Errand:
        off = threading.Event()
        errand = _Errand(in_thread("model", lambda: self._provide(sha256, off)), off)
        errand.path.add_done_callback(lambda _: self._forget(sha256, errand))
        self._errands[sha256] = errand
        return errand

    def _forget(self, sha256: str, errand: _Errand) -> None:
        if self._errands.get(sha256) is errand:
            del self._errands[sha256]

    def _provide(self, sha256: str, off: threading.Event) -> Path:
        try:
            path = self._files.recognise(sha256)
            if path is not None:
                return path
            with self._files.arriving(sha256, off) as landing:
                url = f"{self._settings.source.rstrip('/')}/{sha256}"
                fetch(url, self._settings.rules, landing, off, self._network)
                if landing.sha256() != sha256:
                    raise ModelUnavailableError(
                        Reason.MODEL_HASH,
                        f"the source's bytes have SHA-256 {landing.sha256()}, wanted {sha256}",
                    )
            return self._settings.cache_dir / sha256
        except (NotFetched, TooLarge, Unwritable, Interrupted) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: FetchError) -> ModelUnavailableError:
        """What may pass, and what this vehicle lacks, is not held against the task."""
        if isinstance(error, Unwritable):
            text = f"the model cache {self._settings.cache_dir} cannot be written ({error.text}): see models.cache_dir"
            return ModelUnavailableError(Reason.STORE_FULL, text)
        reason = Reason.MODEL_NOT_FOUND
        if isinstance(error, TooLarge):
            reason = Reason.TOO_LARGE
        elif isinstance(error, Interrupted):
            reason = Reason.LINK_LOST
        return ModelUnavailableError(reason, error.text)
