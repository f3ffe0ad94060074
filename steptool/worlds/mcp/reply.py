"""From what an MCP server replies to an observation."""

from __future__ import annotations

import json
from typing import Any

from mcp.types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from steptool.core.secrets import Secrets
from steptool.core.types import Observation

LONGEST = 1024 * 1024
"""Characters of a reply that are shown."""


def observation_of(result: CallToolResult, secrets: Secrets) -> Observation:
    """Its text, or its structured content where the text is the same or there is none. What is no text is named."""
    texts = [_text(block) for block in result.content]
    structured = result.structured_content
    if structured is not None and (not texts or (len(texts) == 1 and _holds(texts[0], structured))):
        texts = [json.dumps(structured, ensure_ascii=False)]  # without the spaces that servers lay it out with
    text = secrets.hide("\n".join(texts)).encode("utf-8", "replace").decode()
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ... (cut: longer than {LONGEST:,} characters)"
    return Observation(text=text, error="tool_error" if result.is_error else None)


def _holds(text: str, value: Any) -> bool:
    try:
        return bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return False


def _text(block: ContentBlock) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return f"({block.mime_type}, {len(block.data.rstrip('=')) * 3 // 4:,} bytes, not shown)"
        case ResourceLink():
            return f"(resource {block.name}: {block.uri})"
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return resource.text
        case EmbeddedResource():
            return f"({block.resource.mime_type or 'binary'} resource {block.resource.uri}, not shown)"
