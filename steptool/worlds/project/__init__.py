"""What the worlds of a team's own tools share: tasks from a file, checks of answers, sessions, recordings.

    tasks.jsonl ─┐
                 ├─ ProjectWorld ── ProjectSession ── Connection ── the tool
    Toolbox ─────┘                  (one attempt)    (one attempt)

Where the tools come from is a `Toolbox`: functions of a module, an OpenAPI document, an MCP server.
"""
