"""The tools of a bookshop: every public method of `Shop` is one, and its docstring is what the model reads.

Each attempt has a shop of its own: a SQLite database in memory, so that what it orders or cancels is nobody else's.
Every change goes into a ledger, by which a task is checked: each must be made, and made once.
"""

from __future__ import annotations

import sqlite3
from itertools import count
from typing import Any

from stock import BOOKS, CUSTOMERS, SCHEMA, book_id, customer_id, is_busy, ordered

BUSY = "busy, call again"


class Shop:
    def __init__(self) -> None:
        self._numbers = count(101)
        self._db = sqlite3.connect(":memory:")
        self._db.row_factory = sqlite3.Row
        self._db.executescript(SCHEMA)
        books = [(book_id(number), *book, is_busy(number)) for number, book in enumerate(BOOKS)]
        customers = [(customer_id(number), name, is_busy(number)) for number, name in enumerate(CUSTOMERS)]
        orders = [
            (f"o{11 + 2 * number + which}", book_id(book), customer_id(number), 1)
            for number in range(len(CUSTOMERS))
            for which, book in enumerate(ordered(number))
        ]
        self._db.executemany("insert into books values (?, ?, ?, ?, ?, ?)", books)
        self._db.executemany("insert into customers values (?, ?, ?)", customers)
        self._db.executemany("insert into orders values (?, ?, ?, ?)", orders)

    def find(self, title: str) -> dict[str, str]:
        """id of a book"""
        row = self._one("select id, busy from books where title = ? collate nocase", title.strip())
        if row is None:
            raise LookupError(f"no book {title}")
        if row["busy"]:
            self._db.execute("update books set busy = 0 where id = ?", (row["id"],))
            raise TimeoutError(BUSY)
        return {"id": row["id"]}

    def customer(self, name: str) -> dict[str, str]:
        """id of a customer"""
        row = self._one("select id, busy from customers where name = ? collate nocase", name.strip())
        if row is None:
            raise LookupError(f"no customer {name}")
        if row["busy"]:
            self._db.execute("update customers set busy = 0 where id = ?", (row["id"],))
            raise TimeoutError(BUSY)
        return {"id": row["id"]}

    def book(self, id: str) -> dict[str, Any]:
        """author, price and copies of a book"""
        row = self._book(id)
        return {"author": row["author"], "price": row["price"], "copies": row["copies"]}

    def order(self, book: str, customer: str, copies: int) -> dict[str, str]:
        """order copies, by ids"""
        row = self._book(book)
        if self._one("select id from customers where id = ?", customer) is None:
            raise LookupError(f"no customer id {customer}")
        if copies < 1:
            raise ValueError("order 1 or more")
        if row["copies"] < copies:
            raise ValueError(f"only {row['copies']} left, restock 9 first")
        number = f"o{next(self._numbers)}"
        self._db.execute("insert into orders values (?, ?, ?, ?)", (number, book, customer, copies))
        self._db.execute("update books set copies = copies - ? where id = ?", (copies, book))
        self._note(f"{customer} ordered {copies} {book}")
        return {"order": number}

    def orders(self, customer: str) -> list[dict[str, str]]:
        """orders of a customer id"""
        rows = self._db.execute(
            "select orders.id, title from orders join books on books.id = book where customer = ? order by orders.id",
            (customer,),
        ).fetchall()
        if not rows:
            raise LookupError(f"no orders of customer id {customer}")
        return [{"order": row["id"], "title": row["title"]} for row in rows]

    def cancel(self, order: str) -> str:
        """cancel an order"""
        if self._db.execute("delete from orders where id = ?", (order,)).rowcount == 0:
            raise LookupError(f"no order {order}")
        self._note(f"{order} cancelled")
        return "cancelled"

    def restock(self, book: str, copies: int) -> dict[str, int]:
        """add copies of a book id"""
        found = self._book(book)["copies"] + copies
        self._db.execute("update books set copies = ? where id = ?", (found, book))
        self._note(f"restocked {copies} {book}")
        return {"copies": found}

    def ledger(self) -> list[str]:
        """Every change so far. For the checks of tasks: no task offers it."""
        return [row["entry"] for row in self._db.execute("select entry from ledger order by rowid")]

    def _book(self, id: str) -> sqlite3.Row:
        row = self._one("select * from books where id = ?", id)
        if row is None:
            raise LookupError(f"no book id {id}, use find")
        return row

    def _one(self, query: str, *values: str) -> Any:
        return self._db.execute(query, values).fetchone()

    def _note(self, entry: str) -> None:
        self._db.execute("insert into ledger values (?)", (entry,))
