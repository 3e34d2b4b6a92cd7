"""An agent whose steps are durable: each thought is paid for once, however often the process dies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate
from pydantic import BaseModel, Field

from services import books, model


class AgentQuestion(BaseModel):
    """Something that somebody wants to know."""

    topic: str
    question: str
    book: str = Field(description="The name of the book that the steps are noted in.")
    pace: float = Field(1, description="Seconds between two steps.")


class Answer(BaseModel):
    """What the agent found out."""

    answer: str
    sources: list[str]
    model: str = Field(description="The name of the model that gave the answer.")


agent = restate.Service("Agent", description="Answers questions about the shop, step by step.")


@agent.handler()
async def ask(ctx: restate.Context, asked: AgentQuestion) -> Answer:
    """Plan, look up, answer.

    Args:
        ctx: The context.
        asked: What somebody wants to know.

    Returns:
        What was found out.
    """
    topic, question, book = asked.topic, asked.question, asked.book
    pause = timedelta(seconds=asked.pace)

    async def step(name: str, value: Any) -> None:
        await ctx.run_typed(f"note: {name}", books.note, restate.RunOptions(), book, name, found=value)
        await ctx.sleep(pause)

    subjects = await ctx.run_typed("plan", model.plan, restate.RunOptions(), topic, question)
    await step("Plan", ", ".join(subjects))
    facts = {}
    for subject in subjects:
        facts[subject] = await ctx.run_typed(f"look up {subject}", model.look_up, restate.RunOptions(), subject)
        await step(f"Look up: {subject}", facts[subject])
    answer = await ctx.run_typed("answer", model.answer, restate.RunOptions(), question, facts)
    return Answer(answer=answer, sources=subjects, model=model.name())
