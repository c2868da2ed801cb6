from importlib import metadata


def version() -> str:
    """The version of the installed distribution; it stands in pyproject.toml and nowhere else."""
    return metadata.version("parkwatt")
