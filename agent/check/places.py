"""The places from which models and inputs come, and where models are kept."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from agent.check.finding import Finding, broken, works
from agent.check.person import ENTER, READ, WRITE, Person
from agent.fetch.errors import FetchError
from agent.fetch.https_body import reach
from agent.fetch.network import LIVE
from agent.fetch.place import Place, checked
from agent.fetch.thread import in_thread
from agent.settings import InputSettings, ModelSettings


async def model_source(models: ModelSettings, person: Person) -> Finding:
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
    elif not person.may(place, READ | ENTER):
        fix = f"create {place} and let {person.name} read it, or correct models.source"
        return broken("models", models.source, f"is no folder that {person.name} can read", fix)
    return works("models", models.source, "taken by hash when a task asks for one")


def model_cache(models: ModelSettings, person: Person) -> Finding:
    """Whether what is fetched can be kept."""
    folder = models.cache_dir
    there = first_there(folder)
    if not person.may(there, WRITE | ENTER):
        fix = f"create {folder} and give it to {person.name}, or set models.cache_dir"
        return broken("models", str(folder), f"models.cache_dir cannot be written by {person.name}", fix)
    held_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free_bytes = shutil.disk_usage(there).free
    if free_bytes + held_bytes < models.cache_max_bytes:
        text = f"{_mb(free_bytes)} are free on its disk, models.cache_max_bytes may need {_mb(models.cache_max_bytes - held_bytes)} more"
        return broken("models", str(folder), text, "lower models.cache_max_bytes, or free the disk")
    return works("models", str(folder), f"keeps {_mb(held_bytes)} of at most {_mb(models.cache_max_bytes)}")


def first_there(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.3g} GB"


def input_places(inputs: InputSettings, person: Person) -> Iterator[Finding]:
    """Whether the folders from which inputs may come can be read; hosts are tried when a task names one."""
    for folder in inputs.file_dirs:
        if folder.is_dir() and person.may(folder, READ | ENTER):
            yield works("inputs", str(folder), "tasks may name files in it")
        else:
            fix = f"create {folder} and let {person.name} read it, or take it out of inputs.file_dirs"
            yield broken("inputs", str(folder), f"is no folder that {person.name} can read", fix)
    if inputs.hosts:
        yield works("inputs", ", ".join(inputs.hosts), "tasks may name https URLs there")
