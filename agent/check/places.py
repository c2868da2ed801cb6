"""The places from which models and inputs come."""

import os
import threading
from collections.abc import Iterator

from agent.check.finding import Finding, broken, works
from agent.fetch.errors import FetchError
from agent.fetch.https_body import reach
from agent.fetch.network import LIVE
from agent.fetch.place import Place, checked
from agent.fetch.thread import in_thread
from agent.settings import InputSettings, ModelSettings


async def model_source(models: ModelSettings) -> Finding:
    """Whether models can come from where the configuration says; of an https server, that it is the one it should be."""
    place = checked(models.source, models.rules)
    if isinstance(place, Place):
        off = threading.Event()
        try:
            await in_thread("models", lambda: reach(place, models.rules, off, LIVE))
        except FetchError as error:
            fix = "correct models.source, models.ca_file or models.private_networks, or bring the server up"
            return broken("models", models.source, error.text, fix)
        finally:
            off.set()
    return works("models", models.source, "taken by hash when a task asks for one")


def input_places(inputs: InputSettings) -> Iterator[Finding]:
    """Whether the folders from which inputs may come can be read; hosts are tried when a task names one."""
    for folder in inputs.file_dirs:
        if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
            yield works("inputs", str(folder), "tasks may name files in it")
        else:
            fix = f"create {folder} and let the agent's user read it, or take it out of inputs.file_dirs"
            yield broken("inputs", str(folder), "is no folder that can be read", fix)
    if inputs.hosts:
        yield works("inputs", ", ".join(inputs.hosts), "tasks may name https URLs there")
