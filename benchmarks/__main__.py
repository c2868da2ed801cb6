"""`python -m benchmarks`: throughput per watt, and the numbers of the README, each with its goal and its spread."""

import sys

import typer

from benchmarks.commands import compare, measurements, micro, plot, run, self_check, table, tune
from benchmarks.commands.spread import spread

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True
)

# throughput per watt: one file of benchmarks/commands each
app.command("compare")(compare.compare)
app.command("micro")(micro.micro)
app.command("plot")(plot.plot)
app.command("run")(run.run)
app.command("self-check")(self_check.self_check)
app.command("table")(table.table)
app.command("tune")(tune.tune)

# the measurements of what is around it
for command in (*measurements.ALL, *measurements.LONG):
    app.command(command.__name__.replace("_", "-"))(command)
app.command("all")(measurements.everything)


@app.callback()
def benchmarks() -> None:
    """Throughput per watt of the backends on this machine, and the numbers of the README."""


def main(arguments: list[str]) -> None:
    """Run the command line; ends in SystemExit."""
    if arguments[:1] == ["run"]:
        arguments = spread(arguments, run.LISTS)
    app(arguments, prog_name="python -m benchmarks")


if __name__ == "__main__":
    main(sys.argv[1:])
