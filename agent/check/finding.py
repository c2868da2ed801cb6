"""What a look at one part of the configuration has found."""

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One thing that was tried. `fix` says how to mend it; what works has none."""

    part: str
    name: str
    ok: bool
    text: str
    fix: str = ""


def works(part: str, name: str, text: str) -> Finding:
    """It can be used as it is."""
    return Finding(part, name, True, text)


def broken(part: str, name: str, text: str, fix: str) -> Finding:
    """It cannot be used before somebody does what `fix` says."""
    return Finding(part, name, False, text, fix)


def described(finding: Finding) -> str:
    """One line for what works, two for what does not."""
    if finding.ok:
        return f"ok       {finding.part}: {finding.name}: {finding.text}"
    return f"PROBLEM  {finding.part}: {finding.name}: {finding.text}\n    fix: {finding.fix}"
