"""The log of an agent at work in the bookshop of ../bookshop, as any team has one: what it was asked, did and said.

    python write_log.py                                  log.jsonl.gz in OpenAI's form, and tasks.jsonl with checks
    python write_log.py --mlflow http://127.0.0.1:5000   the same conversations as traces of the experiment `bookshop`

The agent looks things up by two calls. Some books' shelves are busy at first; it then tries again in two cases of five,
and tells the others that it cannot help: a log holds what went wrong, too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).parent
BOOKSHOP = HERE.parent / "bookshop"
GROUPS = ("price", "author", "copies")
"""Questions that change nothing: what was changed cannot be replayed."""
GOES_ON = 0.4
MODEL = "gpt-4.1-mini"
SYSTEM = "You are the bookshop's assistant. What you cannot answer goes to Ann Lee, ann.lee@bookshop.example.com."
SORRY = "I am sorry, the shop does not answer at the moment."
SAYS = {
    "price": "{title} costs {price}.",
    "author": "{author} wrote {title}.",
    "copies": "There are {copies} copies of {title}.",
}


def tool(name: str, description: str, argument: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [tool("find", "id of a book", "title"), tool("book", "author, price and copies of a book", "id")]


def conversation(task: dict[str, Any], goes_on: bool) -> list[dict[str, Any]]:
    """The messages of one attempt at a task, made with the shop's own tools."""
    from stock import BOOKS
    from tools import Shop

    shop = Shop()
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task["query"]}]

    def call(name: str, **arguments: str) -> dict[str, Any]:
        try:
            reply = getattr(shop, name)(**arguments)
        except TimeoutError as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        id = f"call_{len(messages)}"
        function = {"name": name, "arguments": json.dumps(arguments)}
        made = {"id": id, "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [made]})
        messages.append({"role": "tool", "tool_call_id": id, "content": json.dumps(reply)})
        return dict(reply)

    title = max((book[0] for book in BOOKS if book[0] in task["query"]), key=len)
    found = call("find", title=title)
    if "error" in found and goes_on:
        found = call("find", title=title)
    if "error" in found:
        return [*messages, {"role": "assistant", "content": SORRY}]
    known = call("book", id=found["id"])
    return [*messages, {"role": "assistant", "content": SAYS[task["group"]].format(title=title, **known)}]


def conversations() -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """The tasks, and a conversation for each."""
    sys.path.insert(0, str(BOOKSHOP))
    lines = map(json.loads, (BOOKSHOP / "tasks.jsonl").read_text().splitlines())
    tasks = [line for line in lines if line["group"] in GROUPS]
    rng = Random(17)
    return tasks, [conversation(task, rng.random() < GOES_ON) for task in tasks]


def write(tasks: list[dict[str, Any]], log: list[list[dict[str, Any]]]) -> None:
    records = [json.dumps({"model": MODEL, "messages": messages, "tools": TOOLS}) for messages in log]
    with (
        (HERE / "log.jsonl.gz").open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as out,
    ):
        out.write("".join(f"{record}\n" for record in records).encode())
    lines = [json.dumps(task, ensure_ascii=False) for task in tasks]
    (HERE / "tasks.jsonl").write_text("".join(f"{line}\n" for line in lines))


def send(log: list[list[dict[str, Any]]], uri: str) -> None:
    """As `mlflow.openai.autolog()` would have traced them: one span a request to the model, within one of the agent."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("bookshop")
    for messages in log:
        with mlflow.start_span(name="agent", span_type="AGENT") as agent:
            agent.set_inputs({"question": messages[1]["content"]})
            for number in [n for n, message in enumerate(messages) if message["role"] == "assistant"]:
                with mlflow.start_span(name="Completions", span_type="CHAT_MODEL") as request:
                    request.set_inputs({"model": MODEL, "messages": messages[:number], "tools": TOOLS})
                    request.set_outputs({"model": MODEL, "choices": [{"index": 0, "message": messages[number]}]})
            agent.set_outputs(messages[-1]["content"])
    mlflow.flush_trace_async_logging()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlflow", help="address of a tracking server; without it, files are written")
    uri = parser.parse_args().mlflow
    tasks, log = conversations()
    if uri:
        send(log, uri)
    else:
        write(tasks, log)


if __name__ == "__main__":
    main()
