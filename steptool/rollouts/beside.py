"""What a search tells the policy beside what the world says, written by any format as a text from outside. Pure.

    the query                 the reply of a tool, or of the user
    <the note>                <the note>

A format encodes it as it does the text that it stands behind, so it holds no control token. Steps keep what the world
said; the note stands in the `context_ids` of the step that it was written for, and nowhere else.
"""

from __future__ import annotations

from steptool.core.types import Step, Task
from steptool.formats.base import Format
from steptool.formats.text import shorten

DOTS = 3
"""Characters that `shorten` adds."""


def task_and(note: str, task: Task) -> Task:
    """The task with the note behind its query; the task itself without a note."""
    return task.model_copy(update={"query": f"{task.query}\n{note}"}) if note else task


def reply_and(note: str, format: Format, last: Step) -> tuple[int, ...] | None:
    """What `format` writes behind the step, with the note behind the last text that came back."""
    observations, reply = last.observations, last.reply
    if note and reply is not None:
        reply = text_and(note, reply, format.max_observation)
    elif note and observations:
        *others, seen = observations
        noted = seen.model_copy(update={"text": text_and(note, seen.text, format.max_observation)})
        observations = (*others, noted)
    return format.reply(last.action_ids, observations, reply)


def text_and(note: str, text: str, most: int) -> str:
    """Both in `most` characters: a note that takes more than half of them is cut, and so is a text that does not fit
    beside it."""
    note = shorten(note, max(0, most // 2 - DOTS))
    return f"{shorten(text, max(0, most - len(note) - 1 - DOTS))}\n{note}"
