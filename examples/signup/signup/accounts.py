"""Who has signed up, in SQLite."""

import sqlite3

DATABASE = "signup.db"


def connect() -> sqlite3.Connection:
    """Open the database. Used in a `with` block, a connection commits at the end, or rolls back."""
    connection = sqlite3.connect(DATABASE)
    connection.execute("CREATE TABLE IF NOT EXISTS account (email TEXT PRIMARY KEY, confirmed INTEGER DEFAULT 0)")
    return connection


def is_confirmed(email: str) -> bool | None:
    """Whether an account is confirmed; None if there is no such account."""
    connection = connect()
    try:
        row = connection.execute("SELECT confirmed FROM account WHERE email = ?", (email,)).fetchone()
    finally:
        connection.close()
    return None if row is None else bool(row[0])
