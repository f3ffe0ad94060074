"""A world of a team's own agent, unchanged: `world: {use: agent, command: python my_agent.py, tasks: tasks.jsonl}`.

    def run(query: str) -> str | None: ...      world: {use: agent, callable: 'my_agent:run'}; it may be async
    python my_agent.py                          world: {use: agent, command: python my_agent.py}; the query is its stdin

The agent asks the model of the environment variables OPENAI_BASE_URL and OPENAI_API_KEY, as OpenAI's client does by
itself, and calls its tools inside of itself. What it asked and what it was answered is the attempt.

    session.run ──▶ fork server ──▶ keeper, one an attempt ──▶ the agent, and whatever it starts
                                    (keeps its output, adopts its orphans)

What is imported in the fork server, for the agents' processes, is `keeper`: it needs none of the rest.
"""
