"""`parkwatt fleet`: tools for a fleet backend. Each command imports what it needs when it runs."""

# ruff: noqa: PLC0415 - for that reason

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

FAILED = 1
SESSION_S = 300
"""How long the broker keeps what it has for a submit that lost its connection; nobody comes back later."""

app = typer.Typer(
    help="The other end of the wire: tools for a fleet backend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


Host = Annotated[str, typer.Option(help="The MQTT broker.")]
Port = Annotated[int, typer.Option(min=1, max=65_535)]
Root = Annotated[str, typer.Option(help="`mqtt.root` of the vehicles.")]
Key = Annotated[
    Path | None, typer.Option(metavar="KID.key", help="Signs the tasks; the file's name is the key id.")
]
WaitS = Annotated[float, typer.Option(min=0, help="How long the broker may take to answer.")]
Username = Annotated[str | None, typer.Option()]
PasswordFile = Annotated[Path | None, typer.Option(metavar="FILE")]
CaFile = Annotated[Path | None, typer.Option(metavar="PEM", help="Switches TLS on.")]
CertFile = Annotated[Path | None, typer.Option(metavar="PEM", help="Our certificate.")]
KeyFile = Annotated[Path | None, typer.Option(metavar="PEM", help="The key of our certificate.")]


@app.command()
def submit(
    tasks: Annotated[
        list[Path], typer.Argument(metavar="TASK.json...", help="Tasks as the contract writes them.")
    ],
    *,
    vehicle: Annotated[str, typer.Option(metavar="ID", help="The vehicle that is to do them.")],
    region: Annotated[str, typer.Option(metavar="CC", help="Its region, BR or BR-SP.")],
    host: Host = "127.0.0.1",
    port: Port = 1883,
    root: Root = "fleet/v1",
    key: Key = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each answer to DIR/<task id>.json.")
    ] = None,
    wait_s: WaitS = 10,
    username: Username = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Publish tasks from files and wait for their results.

    A task file is the contract's task with its tensors as `data`; id, attempt, audience, issued_at,
    expires_at and lease_s may be left out.
    """
    from agent.link import LinkOptions
    from fleet.submission import Submission

    with _one_line_errors():
        options = LinkOptions(
            host=host,
            port=port,
            client_id="",
            session_expiry_s=SESSION_S,
            username=username,
            password_file=password_file,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
        submission = Submission(
            options=options,
            root=root,
            vehicle=vehicle,
            region=region,
            key_path=key,
            out=out,
            wait_s=wait_s,
            say=typer.echo,
            complain=_complain,
        )
        all_done = asyncio.run(submission.run(tasks))
    raise typer.Exit(0 if all_done else FAILED)


@app.command()
def dispatch(
    tasks: Annotated[
        list[Path] | None, typer.Argument(metavar="TASK.json...", help="Tasks as the contract writes them.")
    ] = None,
    *,
    queue: Annotated[
        Path, typer.Option(metavar="FILE", help="The queue; what it holds already is done too.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where each answer goes, as <task id>.json.")],
    vehicles: Annotated[
        str | None,
        typer.Option(metavar="ID:CC,...", help="The vehicles; every one below --root if not given."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 1883,
    root: Root = "fleet/v1",
    key: Key = None,
    wait_s: WaitS = 10,
    username: Username = None,
    password_file: PasswordFile = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Have tasks done by whichever vehicles fit, from a queue on disk that survives this process.

    Task files are those of `submit`, without an audience. Interrupted or killed, the same command without the
    files goes on. Ends when the queue is empty; a task that fails leaves <task id>.failed.json.
    """
    from agent.link import LinkOptions
    from fleet.dispatching import Dispatching

    with _one_line_errors():
        options = LinkOptions(
            host=host,
            port=port,
            client_id="",
            username=username,
            password_file=password_file,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
        dispatching = Dispatching(
            options=options,
            root=root,
            vehicles=_vehicles(vehicles),
            key_path=key,
            queue=queue,
            out=out,
            wait_s=wait_s,
            say=typer.echo,
            complain=_complain,
        )
        all_done = asyncio.run(dispatching.run(tasks or ()))
    raise typer.Exit(0 if all_done else FAILED)


@app.command()
def keygen(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made where it is missing.")],
    kid: Annotated[str, typer.Option(help="Key id: 1-64 of A-Z a-z 0-9 _ -")] = "fleet",
) -> None:
    """Make a key: `<kid>.pem` for the vehicles, `<kid>.key` (mode 0600) for the fleet that signs."""
    from agent.protocol.keys import KeyFileError, write_key_pair

    try:
        public_path, private_path = write_key_pair(directory, kid)
    except KeyFileError as error:
        _fail(str(error))
    typer.echo(f"{public_path}: copy it into trust.task_keys_dir of every vehicle")
    typer.echo(f"{private_path}: keep it where the fleet signs its tasks")


def _vehicles(listed: str | None) -> list[tuple[str, str]] | None:
    if listed is None:
        return None
    vehicles = []
    for one in listed.split(","):
        vehicle, colon, region = one.strip().partition(":")
        if not (vehicle and colon and region):
            _fail(f"--vehicles: {one!r} is not a vehicle and its region: write veh-0001:BR,veh-0002:BR-SP")
        vehicles.append((vehicle, region))
    return vehicles


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """End with one line for what a person can mend."""
    from agent.protocol.keys import KeyFileError
    from fleet.client import BrokerUnreachableError
    from fleet.queue_file import QueueUnusable
    from fleet.submission import SubmissionError
    from fleet.task_file import TaskFileError
    from fleet.task_queue import QueueFailed

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        yield
    except (
        BrokerUnreachableError,
        KeyFileError,
        QueueFailed,
        QueueUnusable,
        SubmissionError,
        TaskFileError,
    ) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")


def _complain(text: str) -> None:
    typer.echo(" ".join(text.split()), err=True)


def _fail(text: str) -> NoReturn:
    _complain(text)
    raise typer.Exit(FAILED)
