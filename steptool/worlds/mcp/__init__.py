"""A world of the tools of an MCP server: `world: {use: mcp, command: [python, server.py], tasks: tasks.jsonl}`, or with
`url: http://…/mcp` one that runs already.

    attempt ── McpConnection ──► Server: a connection, in a task of its own on the toolbox's loop ──► MCP server

A server whose tools all say that they only read (readOnlyHint) is shared by all attempts; else each attempt has a
connection of its own, which over stdio is a process of its own, and so its own state.
"""

from steptool.worlds.mcp.world import McpWorld

__all__ = ["McpWorld"]
