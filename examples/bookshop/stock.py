"""What the shop has at the beginning of every attempt: `SQL` makes its database."""

from __future__ import annotations

BOOKS = (  # title, author, price in dollars, copies
    ("Dune", "Frank Herbert", 9.5, 6),
    ("Emma", "Jane Austen", 6.25, 1),
    ("Kim", "Rudyard Kipling", 7.75, 8),
    ("Walden", "Henry Thoreau", 8.4, 1),
    ("Ulysses", "James Joyce", 12.75, 5),
    ("Dracula", "Bram Stoker", 5.9, 7),
    ("Persuasion", "Jane Austen", 6.8, 1),
    ("Middlemarch", "George Eliot", 11.2, 9),
    ("Nostromo", "Joseph Conrad", 8.6, 6),
    ("Lord Jim", "Joseph Conrad", 7.3, 1),
    ("Moby Dick", "Herman Melville", 10.9, 5),
    ("Ivanhoe", "Walter Scott", 9.1, 1),
    ("Candide", "Voltaire", 4.7, 8),
    ("Hard Times", "Charles Dickens", 6.6, 7),
    ("Bleak House", "Charles Dickens", 12.3, 1),
    ("Jane Eyre", "Charlotte Bronte", 7.2, 9),
    ("Villette", "Charlotte Bronte", 8.9, 1),
    ("Shirley", "Charlotte Bronte", 8.1, 6),
    ("Agnes Grey", "Anne Bronte", 5.6, 5),
    ("Germinal", "Emile Zola", 9.8, 1),
    ("Nana", "Emile Zola", 8.3, 7),
    ("Hunger", "Knut Hamsun", 7.9, 8),
    ("Pan", "Knut Hamsun", 5.2, 1),
    ("Siddhartha", "Hermann Hesse", 6.4, 9),
    ("Demian", "Hermann Hesse", 6.1, 1),
    ("The Trial", "Franz Kafka", 7.6, 6),
    ("The Castle", "Franz Kafka", 8.8, 5),
    ("Amerika", "Franz Kafka", 8.2, 1),
    ("The Idiot", "Fyodor Dostoevsky", 11.6, 7),
    ("Demons", "Fyodor Dostoevsky", 12.1, 8),
    ("Resurrection", "Leo Tolstoy", 10.3, 1),
    ("Oblomov", "Ivan Goncharov", 9.7, 9),
    ("Rudin", "Ivan Turgenev", 5.4, 1),
    ("Smoke", "Ivan Turgenev", 5.8, 6),
    ("The Nose", "Nikolai Gogol", 3.9, 5),
    ("Dead Souls", "Nikolai Gogol", 9.3, 1),
    ("Zorba", "Nikos Kazantzakis", 8.7, 7),
    ("Barabbas", "Par Lagerkvist", 6.9, 8),
    ("Niels Lyhne", "Jens Jacobsen", 7.1, 1),
    ("Effi Briest", "Theodor Fontane", 7.4, 9),
    ("The Stechlin", "Theodor Fontane", 10.6, 1),
    ("Quo Vadis", "Henryk Sienkiewicz", 11.4, 6),
    ("The Doll", "Boleslaw Prus", 12.6, 5),
    ("Pharaoh", "Boleslaw Prus", 11.9, 1),
    ("Hadji Murat", "Leo Tolstoy", 6.3, 7),
    ("Pamela", "Samuel Richardson", 9.9, 8),
    ("Evelina", "Frances Burney", 8.5, 1),
    ("Cranford", "Elizabeth Gaskell", 5.7, 9),
    ("Ruth", "Elizabeth Gaskell", 6.7, 1),
    ("Erewhon", "Samuel Butler", 7.7, 6),
    ("She", "Rider Haggard", 5.3, 5),
    ("Kidnapped", "Robert Stevenson", 6.5, 1),
    ("Catriona", "Robert Stevenson", 6.2, 7),
    ("New Grub Street", "George Gissing", 9.4, 8),
    ("Marius", "Walter Pater", 7.8, 1),
    ("Daisy Miller", "Henry James", 4.9, 9),
    ("The Europeans", "Henry James", 7.5, 1),
    ("Sister Carrie", "Theodore Dreiser", 10.2, 6),
    ("McTeague", "Frank Norris", 8.0, 5),
    ("Babbitt", "Sinclair Lewis", 9.6, 1),
)
CUSTOMERS = (
    *("Ann Lee", "Bo Park", "Cleo Diaz", "Dan Reed", "Eva Holm", "Finn Moss", "Gail Ward", "Hugo Lind"),
    *("Ida Brandt", "Jan Novak", "Kira Sato", "Leo Grant", "Mia Rossi", "Noah Hale", "Olga Petrov", "Paul Weiss"),
    *("Quinn Ford", "Rosa Marin", "Sven Dahl", "Tara Singh", "Uma Patel", "Vera Kowal", "Will Shaw", "Xena Cole"),
    *("Yara Haddad", "Zoe Martin", "Abel Costa", "Bea Young", "Carl Busch", "Dora Klein"),
)
BUSY = 4, 8
"""Of ten books, or customers, in a row: those whose first look-up in an attempt finds the catalogue busy."""

SCHEMA = """
create table books (id text primary key, title text, author text, price real, copies integer, busy integer);
create table customers (id text primary key, name text, busy integer);
create table orders (id text primary key, book text, customer text, copies integer);
create table ledger (entry text);
"""


def book_id(number: int) -> str:
    return f"b{101 + 7 * number}"


def customer_id(number: int) -> str:
    return f"c{31 + 3 * number}"


def is_busy(number: int) -> bool:
    return number * 7 % 10 in range(*BUSY)


def ordered(customer: int) -> tuple[int, int]:
    """Numbers of the two books that a customer has ordered: equal to its own, modulo three (see write_tasks.py)."""
    first = (6 * (customer // 3) + customer % 3) % len(BOOKS)
    return first, (first + 3) % len(BOOKS)
