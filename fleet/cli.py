"""`parkwatt fleet`: tools for a fleet backend. Each command imports what it needs when it runs."""

# ruff: noqa: PLC0415 - for that reason

import asyncio
import logging
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


@app.command()
def submit(
    tasks: Annotated[
        list[Path], typer.Argument(metavar="TASK.json...", help="Tasks as the contract writes them.")
    ],
    *,
    vehicle: Annotated[str, typer.Option(metavar="ID", help="The vehicle that is to do them.")],
    region: Annotated[str, typer.Option(metavar="CC", help="Its region, BR or BR-SP.")],
    host: Annotated[str, typer.Option(help="The MQTT broker.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 1883,
    root: Annotated[str, typer.Option(help="`mqtt.root` of the vehicle.")] = "fleet/v1",
    key: Annotated[
        Path | None, typer.Option(metavar="KID.key", help="Signs the tasks; the file's name is the key id.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each answer to DIR/<task id>.json.")
    ] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="How long the broker may take to answer.")] = 10,
    username: Annotated[str | None, typer.Option()] = None,
    password_file: Annotated[Path | None, typer.Option(metavar="FILE")] = None,
    ca_file: Annotated[Path | None, typer.Option(metavar="PEM", help="Switches TLS on.")] = None,
    cert_file: Annotated[Path | None, typer.Option(metavar="PEM", help="Our certificate.")] = None,
    key_file: Annotated[Path | None, typer.Option(metavar="PEM", help="The key of our certificate.")] = None,
) -> None:
    """Publish tasks from files and wait for their results.

    A task file is the contract's task with its tensors as `data`; id, attempt, audience, issued_at,
    expires_at and lease_s may be left out.
    """
    from agent.link import LinkOptions
    from agent.protocol.keys import KeyFileError
    from fleet.submission import Submission, SubmissionError
    from fleet.task_file import TaskFileError

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        options = LinkOptions(
            host=host,
            port=port,
            client_id="",
            session_expiry_s=SESSION_S,
            username=username,
            password=password_file.read_text("utf-8").rstrip("\r\n") if password_file else None,
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
    except (KeyFileError, SubmissionError, TaskFileError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
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


def _complain(text: str) -> None:
    typer.echo(" ".join(text.split()), err=True)


def _fail(text: str) -> NoReturn:
    _complain(text)
    raise typer.Exit(FAILED)
