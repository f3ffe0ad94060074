"""The world's own experts behind an endpoint: a teacher that is right, or answers what a test says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from steptool.core.types import Task, Trajectory
from steptool.formats.names import OPENAI, Names
from tests.endpoints.fake import Answer, says


def expert(tasks: Iterable[Task], shown: Iterable[Trajectory]) -> Callable[[Mapping[str, Any]], Answer]:
    """Does at the n-th request of a conversation what the demonstration of its task does in step n."""
    by_id = {task.id: task for task in tasks}
    known = {by_id[each.task_id].query: (by_id[each.task_id], each) for each in shown}

    def act(request: Mapping[str, Any]) -> Answer:
        messages = request["messages"]
        task, attempt = known[next(each["content"] for each in messages if each["role"] == "user")]
        action = attempt.steps[sum(each["role"] == "assistant" for each in messages)].action
        if action.is_finish:
            return says(action.answer or "I cannot answer this.")
        calls = Names.of(task.tools, OPENAI).write(action).calls
        return says(calls=[(call.name, json.dumps(call.arguments)) for call in calls])

    return act
