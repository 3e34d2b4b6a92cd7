"""What the agent thinks with: a real language model when a key is in the environment, a small built-in one otherwise.

The built-in one is deterministic and needs no network. ``ANTHROPIC_API_KEY`` or ``OPENAI_API_KEY`` switches to a real
one over plain HTTPS (``AGENT_MODEL`` names which; ``ANTHROPIC_BASE_URL`` and ``OPENAI_BASE_URL`` another address).
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from typing import Any

from restate.exceptions import TerminalError

FACTS = {
    "shipping": "Parcels leave the same day when they are ordered before three, and arrive within two days.",
    "returns": "Everything can be sent back within thirty days, and the money is back within a week.",
    "cancelling": "An order can be cancelled until it is shipped. The card is refunded and the stock released.",
    "mugs": "The mugs are made of stoneware, hold 350 ml, and go into the dishwasher.",
    "notebooks": "The notebooks have 160 dotted pages of 100 g paper, and open flat.",
    "lamps": "The lamps take any E27 bulb of at most 40 W, and have a two metre cable.",
    "plants": "The plants like a bright place without sun at noon, and water once a week.",
}
_WORDS = {
    "shipping": ("ship", "deliver", "arrive", "parcel", "fast", "long"),
    "returns": ("return", "back", "refund", "money"),
    "cancelling": ("cancel", "stop", "undo"),
    "mugs": ("mug", "cup", "coffee", "tea", "dish"),
    "notebooks": ("notebook", "paper", "page", "write"),
    "lamps": ("lamp", "light", "bulb"),
    "plants": ("plant", "water", "sun", "green"),
}
_MOST_SUBJECTS = 3
_TIMEOUT = 60  # seconds that a real model may take for one step


def name() -> str:
    """Return the name of the model in use."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        return os.environ.get("AGENT_MODEL", "claude-haiku-4-5")
    if os.environ.get("OPENAI_API_KEY"):
        return os.environ.get("AGENT_MODEL", "gpt-4o-mini")
    return "built-in"


def plan(topic: str, question: str) -> list[str]:
    """Choose the subjects to look up, at least one and at most three."""
    if name() == "built-in":
        text = f"{topic} {question}".lower()
        found = [subject for subject, words in _WORDS.items() if any(word in text for word in words)]
    else:
        said = _complete(
            f"Subjects: {', '.join(FACTS)}.\nA customer asks about {topic!r}: {question}\n"
            "Name the subjects that help to answer, as a list with commas and nothing else."
        )
        found = [subject for subject in re.findall(r"[a-z]+", said.lower()) if subject in FACTS]
    return list(dict.fromkeys(found))[:_MOST_SUBJECTS] or ["shipping"]


def look_up(subject: str) -> str:
    """Return what the shop knows about a subject."""
    return FACTS[subject]


def answer(question: str, facts: dict[str, str]) -> str:
    """Answer from the facts that were looked up."""
    known = " ".join(facts.values())
    if name() == "built-in":
        return f"You asked: “{question}” {known}"
    return _complete(f"Facts about the shop: {known}\nAnswer in at most three sentences: {question}")


def _complete(prompt: str) -> str:
    """Ask the real model for a text. Restate repeats the step when the network fails."""
    if key := os.environ.get("ANTHROPIC_API_KEY"):
        base = os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        url = f"{base.rstrip('/')}/v1/messages"
    else:
        base = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
        headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
        url = f"{base.rstrip('/')}/chat/completions"
    body = {"model": name(), "max_tokens": 400, "messages": [{"role": "user", "content": prompt}]}
    reply = _post(url, body, headers)
    return str(reply["content"][0]["text"] if "content" in reply else reply["choices"][0]["message"]["content"])


def _post(url: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    if not url.startswith(("https://", "http://")):
        raise TerminalError(f"{url} is no web address", status_code=500)
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - the scheme was looked at
            reply: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode(errors="replace")
        if error.code in {400, 401, 403, 404}:
            # Trying again would change nothing, and the agent would back off for ever.
            raise TerminalError(f"the model refused ({error.code}): {said}", status_code=502) from error
        raise
    return reply
