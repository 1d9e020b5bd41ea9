"""Why a run stops: each text says what to do or what was wrong."""

from __future__ import annotations


class BenchmarkError(Exception):
    """The run can't go on; the text is for the person who started it."""


class CheckFailed(BenchmarkError):
    """A gateway did something wrong while it was measured: an answer or a record."""
