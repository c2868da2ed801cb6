"""`--backend cpu tflite` as `--backend cpu --backend tflite`: the command line's own parser takes one value an option."""

from collections.abc import Collection, Sequence


def spread(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """The arguments with every option of `options` repeated before each of its values.

    Its values are all that follows up to the next thing that begins with a dash.
    """
    spread_out: list[str] = []
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in options else ""
            spread_out.append(argument)
        elif option:
            spread_out += [argument] if spread_out[-1] == option else [option, argument]
        else:
            spread_out.append(argument)
    return spread_out


def names(values: Sequence[str]) -> list[str]:
    """What was named, once each, in order; commas part names, too."""
    return list(dict.fromkeys(name for value in values for name in value.split(",") if name))
