"""A service that is sent with a delay: the reminder sleeps in Restate, and no process has to stay alive for it."""

from __future__ import annotations

import restate
from pydantic import BaseModel

from services import books


class Mail(BaseModel):
    """A text for somebody."""

    to: str
    text: str = ""


class Sent(BaseModel):
    """A mail that is on its way."""

    sent_to: str
    sent_at: str


mailer = restate.Service("Mailer", description="Writes to people.")


@mailer.handler()
async def remind(ctx: restate.Context, mail: Mail) -> Sent:
    """Send one reminder; the mail server of this shop is a book."""
    line = await ctx.run_typed(
        "send mail",
        books.note,
        restate.RunOptions(),
        "mail",
        f"Reminder {ctx.request().id}",
        to=mail.to,
        text=mail.text,
    )
    return Sent(sent_to=mail.to, sent_at=line["at"])
