"""What kongai knows of LLM wire formats: pure functions and small state machines.

Nothing in here reads a clock, a file, a socket or the environment; bytes come in as
arguments, and facts go out as values.
"""
