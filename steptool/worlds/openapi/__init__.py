"""A world of the operations of an HTTP service: `world: {use: openapi, document: openapi.yaml, tasks: tasks.jsonl}`.

    GET /books/{id}?lang=…          tool getBook(id, lang)
    POST /orders  {"book", "count"}   tool createOrder(book, count), where `allow` names it

The document says what there is (OpenAPI 3.0 or 3.1, a file or an address), where the service is, and how one
authenticates; the secrets come from environment variables. Only what reads (GET, HEAD) is offered unless `allow` names
more.

    document   reads it                     operations  its operations, as tools
    schemas    its schemas, as JSON Schema  request     from arguments to a request
    security   secrets, into requests       reply       from a reply to an observation
"""

from steptool.worlds.openapi.world import OpenApiWorld

__all__ = ["OpenApiWorld"]
