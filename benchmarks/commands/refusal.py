"""How a command refuses: one line on stderr, and an exit code."""

import typer


def refused(text: str, code: int = 2) -> typer.Exit:
    """To be raised. `text`: what, where, the value, the limit, what to do. 2: the call is wrong; 1: the work is."""
    typer.echo(text, err=True)
    return typer.Exit(code)
