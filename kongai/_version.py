"""The version, in one place: packaging reads it, `Via` and `--version` say it."""

__version__ = "0.1.0"
