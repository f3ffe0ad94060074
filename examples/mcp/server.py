"""An MCP server, the desk of a library. Each process has books of its own: what one attempt lends, others find in.

python server.py          speaks over stdin and stdout
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

TITLES = (
    "Dune", "Emma", "Kim", "Walden", "Ulysses", "Persuasion", "Ivanhoe", "Middlemarch", "Dracula", "Nostromo",
    "Utopia", "Candide", "Carmen", "Faust", "Hamlet", "Othello", "Phaedra", "Rebecca", "Silas", "Zadig",
    "Antigone", "Belinda", "Camilla", "Daisy", "Electra", "Felix", "Germinal", "Hedda", "Iphigenia", "Justine",
    "Kenilworth", "Lamia", "Macbeth", "Nana", "Oblomov", "Pamela", "Rasselas", "Salome", "Tartuffe", "Vathek",
)  # fmt: skip
AUTHORS = ("Ada Brook", "Carl Dean", "Elsa Frost", "Gil Hart", "Ida Jones")
KINDS = ("novel", "play", "essay")
READS = ToolAnnotations(read_only_hint=True)


@dataclass
class Book:
    id: str
    title: str
    author: str
    kind: str
    year: int
    shelf: str
    copies: int
    """Those that are in."""


def books() -> dict[str, Book]:
    """The same in each process."""
    made = [
        Book(
            id=f"b{place + 1}",
            title=title,
            author=AUTHORS[place * 3 % len(AUTHORS)],
            kind=KINDS[place % len(KINDS)],
            year=1900 + place * 37 % 97,
            shelf="ABCDE"[place * 2 % 5] + str(place % 7 + 1),
            copies=place * 5 % 4 + 1,
        )
        for place, title in enumerate(TITLES)
    ]
    return {book.id: book for book in made}


BOOKS = books()
LOANS: dict[str, list[str]] = {}
server = MCPServer("library")


def _book(id: str) -> Book:
    if id not in BOOKS:
        raise ToolError(f"no book of the id {id}, use find_book")
    return BOOKS[id]


@server.tool(annotations=READS)
def find_book(title: str) -> dict[str, str]:
    """Id of a book by its title."""
    for book in BOOKS.values():
        if book.title.casefold() == title.casefold():
            return {"id": book.id}
    raise ToolError(f"no book of the title {title}")


@server.tool(annotations=READS)
def get_book(id: str) -> dict[str, Any]:
    """All of a book: title, author, kind, year, shelf, copies that are in."""
    return asdict(_book(id))


@server.tool(annotations=READS)
def books_by(author: str, kind: Literal["novel", "play", "essay"] | None = None) -> dict[str, list[str]]:
    """Titles of an author's books, of one kind or of all."""
    found = [book for book in BOOKS.values() if book.author == author and kind in (None, book.kind)]
    return {"titles": [book.title for book in found]}


@server.tool(annotations=READS)
def loans_of(member: str) -> dict[str, list[str]]:
    """Ids of the books that a member has."""
    return {"ids": LOANS.get(member, [])}


@server.tool()
def lend(id: str, member: str) -> dict[str, int]:
    """Lend a copy of a book to a member; replies with how many copies are left."""
    book = _book(id)
    if book.copies == 0:
        raise ToolError(f"all copies of {book.title} are lent")
    book.copies -= 1
    LOANS.setdefault(member, []).append(id)
    return {"left": book.copies}


if __name__ == "__main__":
    server.run("stdio")
