import smtplib
from email.message import EmailMessage
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from jobqueue.testing import Testing
from signup import accounts, mails
from signup.mails import confirm, remind
from signup.web import app

ANN = "ann@example.org"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(accounts, "DATABASE", str(tmp_path / "signup.db"))
    return app.test_client()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[EmailMessage]:
    messages: list[EmailMessage] = []
    monkeypatch.setattr(mails, "deliver", messages.append)
    return messages


def test_a_signup_enqueues_both_mails(jobqueue: Testing, web: FlaskClient) -> None:
    assert web.post("/signup", data={"email": ANN}).status_code == 201
    jobqueue.assert_enqueued(confirm, email=ANN)
    reminder = jobqueue.assert_enqueued(remind, email=ANN)
    assert (reminder.due - reminder.created).days == 3


def test_an_address_that_is_taken_gets_no_mail(jobqueue: Testing, web: FlaskClient, sent: list[EmailMessage]) -> None:
    web.post("/signup", data={"email": ANN})
    jobqueue.drain()
    assert web.post("/signup", data={"email": ANN}).status_code == 409
    jobqueue.refute_enqueued(confirm)
    assert len(sent) == 1


@pytest.mark.parametrize(("answers", "outcomes"), [(True, {"discarded": 1}), (False, {"done": 1})])
def test_a_reminder_after_three_days_for_those_who_did_not_answer(
    answers: bool, outcomes: dict[str, int], jobqueue: Testing, web: FlaskClient, sent: list[EmailMessage]
) -> None:
    web.post("/signup", data={"email": ANN})
    assert jobqueue.drain() == {"done": 1}
    if answers:
        web.post("/confirm", data={"email": ANN})
    jobqueue.clock.advance(days=3)
    assert jobqueue.drain() == outcomes
    subjects = [message["Subject"] for message in sent]
    assert subjects == ["please confirm your address", "you have not confirmed your address yet"][: 2 - answers]


def test_no_account_without_its_mails(jobqueue: Testing, web: FlaskClient, sent: list[EmailMessage]) -> None:
    with jobqueue.cut_server():
        assert web.post("/signup", data={"email": ANN}).status_code == 503
    assert accounts.is_confirmed(ANN) is None
    assert web.post("/signup", data={"email": ANN}).status_code == 201  # the visitor tries again
    jobqueue.drain()
    assert len(sent) == 1


def test_a_lost_reply_is_no_second_mail(jobqueue: Testing, web: FlaskClient, sent: list[EmailMessage]) -> None:
    jobqueue.lose_reply()
    assert web.post("/signup", data={"email": ANN}).status_code == 201
    assert jobqueue.drain() == {"done": 1}
    assert len(sent) == 1


def test_a_job_that_is_faster_than_the_commit(jobqueue: Testing, web: FlaskClient, sent: list[EmailMessage]) -> None:
    confirm.enqueue(ANN)
    assert jobqueue.drain() == {"retried": 1}
    web.post("/signup", data={"email": ANN})
    jobqueue.clock.advance(seconds=5)
    jobqueue.drain()
    assert len(sent) == 2  # its own, and that of the signup


def test_an_address_that_does_not_exist(jobqueue: Testing, web: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(message: EmailMessage) -> None:
        raise smtplib.SMTPRecipientsRefused({message["To"]: (550, b"no such user")})

    web.post("/signup", data={"email": ANN})
    monkeypatch.setattr(mails, "deliver", refuse)
    assert jobqueue.drain(reraise=False) == {"dead": 1}
    [dead] = jobqueue.dead()
    assert "no such user" in str(dead.error)


def test_a_runner_that_dies_after_sending(
    jobqueue: Testing, web: FlaskClient, sent: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_and_die(message: EmailMessage) -> None:
        sent.append(message)
        if len(sent) == 1:
            jobqueue.crash_runner()

    monkeypatch.setattr(mails, "deliver", send_and_die)
    web.post("/signup", data={"email": ANN})
    assert jobqueue.drain() == {"crashed": 1}
    jobqueue.clock.advance(minutes=1)
    assert jobqueue.drain() == {"done": 1}
    first, second = sent
    assert first["Message-ID"] == second["Message-ID"]
