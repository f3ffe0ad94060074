"""The same with LangGraph."""

from __future__ import annotations

import desk
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent

agent = create_react_agent(
    ChatOpenAI(model="gpt-4o-mini"), list(desk.TOOLS.values()), prompt="You answer questions about trains."
)


async def run(query: str) -> str:
    state = await agent.ainvoke({"messages": [("user", query)]})
    return str(state["messages"][-1].content)
