"""The tools: every public function here is one. Its signature and docstring are what the policy reads.

Replace these two by yours. They may be async; a class, with methods that share state, is named in params.yaml as
`module: 'tools.py:Shop'`, and each attempt gets an object of its own.
"""

from __future__ import annotations

BOOKS = {
    "b1": {"title": "Dune", "author": "Frank Herbert", "price": 9.5},
    "b2": {"title": "Emma", "author": "Jane Austen", "price": 6.0},
    "b3": {"title": "Kim", "author": "Rudyard Kipling", "price": 7.25},
    "b4": {"title": "Walden", "author": "Henry Thoreau", "price": 8.0},
    "b5": {"title": "Ulysses", "author": "James Joyce", "price": 12.75},
}


def find(title: str) -> dict[str, str]:
    """Id of a book.

    Args:
        title: the whole title
    """
    for book_id, book in BOOKS.items():
        if str(book["title"]).casefold() == title.casefold():
            return {"id": book_id}
    raise LookupError(f"no book of the title {title}")


def look_up(id: str) -> dict[str, object]:
    """Title, author and price of a book.

    Args:
        id: as `find` gives it
    """
    if id not in BOOKS:
        raise LookupError(f"no book of the id {id}, use find")
    return BOOKS[id]
