"""The web side: `flask --app signup.web run`."""

import sqlite3

from flask import Flask, request

from jobqueue import NotApplied, OutcomeUnknown
from signup.accounts import connect
from signup.mails import confirm, remind
from signup.work import jobs

app = Flask(__name__)
Answer = tuple[dict[str, str], int]


@app.post("/signup")
def sign_up() -> Answer:
    """Make an account, and enqueue its mails; neither without the other."""
    email = request.form["email"]
    connection = connect()
    try:
        with connection:
            connection.execute("INSERT INTO account (email) VALUES (?)", (email,))
            # Before the commit: if the jobs cannot be stored, there is no account that waits for its mail for ever.
            jobs.enqueue_many([confirm.call(email), remind.opts(delay=3 * 24 * 3600).call(email)])
    except sqlite3.IntegrityError:
        return {"error": "this address has an account"}, 409
    except (NotApplied, OutcomeUnknown):  # jobs that are stored all the same find no account, and die
        return {"error": "try again in a minute"}, 503
    finally:
        connection.close()
    return {"email": email}, 201


@app.post("/confirm")
def confirm_address() -> Answer:
    """Note that the address is theirs."""
    email = request.form["email"]  # a real application has a secret in the link
    connection = connect()
    try:
        with connection:
            connection.execute("UPDATE account SET confirmed = 1 WHERE email = ?", (email,))
    finally:
        connection.close()
    return {"email": email}, 200
