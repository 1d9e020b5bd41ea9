"""What the errors of all formats have in common."""

from __future__ import annotations

TOO_LONG = "prompt is too long"
"""How Anthropic begins the error for a prompt that exceeds the context window. Claude
Code shortens the conversation when it reads this."""

_LONGEST = 1000


def plain_message(status: int, body: bytes) -> str:
    """The message of an error that is in no known form.

    Args:
        status: the HTTP status.
        body: what came; used where it is a text, and not a page for a browser.
    """
    text = body[:_LONGEST].decode("utf-8", "replace").strip()
    if not text or text[0] in "<{[" or not text.isprintable():
        return f"the provider answered with status {status}"
    return text
