import json
from typing import Any

import pytest

from edge import frames
from edge.answers import Answer, read_answer
from edge.session import MAX_IN_FLIGHT, MAX_MESSAGE, Action, Ask, Close, LoggedIn, Session, Write
from schemas.errors import ErrorBody
from shared.auth import Claims
from shared.bus import pack_headers
from shared.errors import Unauthenticated
from tests.edge import client_frame

CLAIMS = Claims(7, "s1", 0, 1)


def verify(token: str) -> Claims:
    if token != "good":
        raise Unauthenticated("the access token is not valid")
    return CLAIMS


def session(*, logged_in: bool = True) -> Session:
    s = Session(verify)
    if logged_in:
        assert list(s.log_in("good")) == [LoggedIn(CLAIMS)]
    return s


def say(s: Session, text: str | bytes) -> list[Action]:
    payload = text.encode() if isinstance(text, str) else text
    return list(s.receive(client_frame(frames.TEXT, payload)))


def told(action: Action | bytes) -> dict[str, Any]:
    wire = (
        action if isinstance(action, bytes) else action.wire if isinstance(action, Write) else b""
    )
    assert wire[:1] == b"\x81", action
    return dict(json.loads(wire[2 if wire[1] < 126 else 4 :]))


def one_error(actions: list[Action]) -> dict[str, Any]:
    assert len(actions) == 1, actions
    frame = told(actions[0])
    assert frame["type"] == "error"
    assert len(frame["trace_id"]) == 32
    return frame


def close_code(action: Action) -> int:
    assert isinstance(action, Close), action
    return int.from_bytes(action.wire[2:4])


def test_a_command_is_asked_and_answered_under_its_id() -> None:
    s = session()
    actions = say(s, '{"type":"message.send","id":"a\\"b","data":{"x": [1,2]}}')
    assert len(actions) == 1
    ask = actions[0]
    assert isinstance(ask, Ask)
    assert (ask.command.type, ask.data, s.in_flight) == ("message.send", b'{"x": [1,2]}', 1)
    answer = s.answered(ask.request_id, Answer("ok", 0, b'{"seq":3}'))
    assert told(answer) == {"type": "ack", "id": 'a"b', "data": {"seq": 3}}
    assert s.in_flight == 0


@pytest.mark.parametrize("text", ['{"type":"message"}', '{"type":"message","id":null,"extra":[]}'])
def test_alias_without_id_and_data(text: str) -> None:
    (ask,) = say(session(), text)
    assert isinstance(ask, Ask)
    assert (ask.command.type, ask.request_id, ask.data) == ("message.send", b"null", b"{}")


def test_an_error_body_is_spliced_in() -> None:
    s = session()
    body = b'{"code":"conflict","message":"taken","trace_id":"t","field":"x"}'
    headers = pack_headers({"Nats-Service-Error": "taken", "Nats-Service-Error-Code": "409"})
    answer = read_answer(body, headers, "t")
    assert (answer.code, answer.status) == ("conflict", 409)
    assert told(s.answered(b"5", answer)) == {
        "type": "error", "id": 5, "code": "conflict", "message": "taken", "trace_id": "t", "field": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "headers", "code", "status"),
    [
        (None, b"", "unknown_outcome", 504),
        (b"", b"NATS/1.0 503\r\n\r\n", "unavailable", 503),
        (b"no json", pack_headers({"Nats-Service-Error-Code": "409"}), "internal", 500),
        (b"[]", pack_headers({"Nats-Service-Error-Code": "409"}), "internal", 500),
        (b"\xff", pack_headers({"Nats-Service-Error-Code": "409"}), "internal", 500),
        (b'{"code":"new_one","message":""}', pack_headers({"Nats-Service-Error-Code": "422"}), "new_one", 422),
        (b'{"code":"odd","message":""}', pack_headers({"Nats-Service-Error-Code": "99"}), "odd", 500),
    ],
)  # fmt: skip
def test_answers_that_are_errors(
    payload: bytes | None, headers: bytes, code: str, status: int
) -> None:
    answer = read_answer(payload, headers, "0" * 32)
    assert (answer.code, answer.status) == (code, status)
    assert json.loads(answer.body)["code"] == code


def test_an_answer_with_other_headers_is_no_error() -> None:
    assert read_answer(b"{}", pack_headers({"x": "y"}), "t") == Answer("ok", 0, b"{}")


def test_every_edge_error_is_an_error_body() -> None:
    ErrorBody(**json.loads(read_answer(None, b"", "t").body))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "nonsense", "[]", "1", "null", '"ping"', "{}", '{"type":5}', '{"type":null}',
        '{"id":null}', '{"type":"ping","id":[]}', '{"type":"ping","id":{}}', '{"type":"ping","id":1.5}',
        '{"type":"ping","id":true}', '{"type":"ping","id":9007199254740993}', '{"type":"ping","id":1e999}',
        '{"type":"ping","id":' + "9" * 5000 + "}", '{"type":"ping","id":"' + "x" * 65 + '"}',
        '{"type":"ping","data":{"a":' + "[" * 30_000 + "}}", '{"type":"ping","data":' + '{"a":' * 10_000 + "}",
        "[" * 60_000, '{"type":"ping","data":{"a":}}', '{"type":"ping"} x', '{"type":"p\ning"}',
        '\ufeff{"type":"ping"}', '{"type":"\\ud800"}',
    ],
)  # fmt: skip
def test_broken_envelopes_are_refused_and_harm_nothing(text: str) -> None:
    s = session()
    error = one_error(say(s, text))
    assert (error["code"], error["id"]) == ("bad_request", None)
    assert told(say(s, '{"type":"ping","id":1}')[0]) == {"type": "ack", "id": 1, "data": {}}


@pytest.mark.parametrize(
    "text",
    [
        '{"id":7}', '{"id":7,"type":5}', '{"id":7,"type":null,"data":{}}',
        '{"type":"message","id":7,"data":{"content":"\\ud83d"}}',
        '{"type":"ping","id":7,"data":NaN}', '{"data":' + "[" * 600 + "]" * 600 + ',"id":7}',
    ],
)  # fmt: skip
def test_what_is_not_understood_keeps_its_id(text: str) -> None:
    error = one_error(say(session(), text))
    assert (error["code"], error["id"]) == ("bad_request", 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"type":"no.such","id":5}', "unknown type 'no.such'"),
        ('{"type":"im.v1.cmd.1.x>*\\r\\n","id":5}', "unknown type"),
        ('{"type":"auth","id":5,"data":{"token":"good"}}', "logged in already"),
        ('{"type":"auth.login","id":5,"data":{}}', "over HTTP only"),
    ],
)
def test_types_that_are_no_commands(text: str, says: str) -> None:
    error = one_error(say(session(), text))
    assert (error["code"], error["id"], error.get("field", "type")) == (
        "bad_request",
        5,
        "type",
    )
    assert says in error["message"]


def test_binary_is_refused() -> None:
    s = session()
    error = one_error(list(s.receive(client_frame(frames.BINARY, b"{}"))))
    assert error["code"] == "bad_request"
    assert not s.closed


def test_first_frame_logs_in() -> None:
    s = session(logged_in=False)
    assert say(s, '{"type":"auth","data":{"token":"good"}}') == [LoggedIn(CLAIMS)]
    assert isinstance(say(s, '{"type":"message"}')[0], Ask)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"auth","id":5,"data":{"token":"bad"}}', '{"type":"auth","id":5}',
        '{"type":"auth","id":5,"data":{"token":1}}', '{"type":"auth","id":5,"data":[]}',
        '{"type":"message.send","id":5}', '{"type":"ping","id":5}',
    ],
)  # fmt: skip
def test_without_a_good_token_nothing_goes(text: str) -> None:
    s = session(logged_in=False)
    error, close = say(s, text)
    assert (told(error)["code"], told(error)["id"]) == ("unauthenticated", 5)
    assert close_code(close) == 4401
    assert say(s, '{"type":"auth","data":{"token":"good"}}') == []


def test_no_token_in_time() -> None:
    error, close = session(logged_in=False).too_late()
    assert told(error)["code"] == "unauthenticated"
    assert close_code(close) == 4401


def test_more_than_the_allowed_number_in_flight_is_rate_limited() -> None:
    s = session()
    text = '{"type":"message","id":1}'
    asked = [say(s, text)[0] for _ in range(MAX_IN_FLIGHT)]
    assert all(isinstance(a, Ask) for a in asked)
    error = one_error(say(s, text))
    assert (error["code"], error["id"]) == ("rate_limited", 1)
    assert error["retry_after_ms"] > 0
    s.answered(b"1", Answer("ok", 0, b"{}"))
    assert isinstance(say(s, text)[0], Ask)
    assert not s.closed


def test_pings_and_pongs_of_the_protocol() -> None:
    s = session()
    assert list(s.receive(client_frame(frames.PING, b"hi"))) == [Write(b"\x8a\x02hi")]
    assert list(s.receive(client_frame(frames.PONG, b""))) == []


def test_too_large_closes() -> None:
    s = session()
    assert close_code(say(s, "x" * (MAX_MESSAGE + 1))[0]) == 1009
    assert s.closed
    assert say(s, '{"type":"ping"}') == []


@pytest.mark.parametrize("code", [None, 1000, 4000])
def test_the_clients_close_is_answered_in_kind(code: int | None) -> None:
    payload = b"" if code is None else code.to_bytes(2) + b"bye"
    (close,) = session().receive(client_frame(frames.CLOSE, payload))
    assert close == Close(frames.close_frame(code or 0), at_once=True)


def test_after_our_close_only_the_clients_close_counts() -> None:
    s = session()
    assert close_code(s.close(4409, "kicked")) == 4409
    stream = client_frame(frames.TEXT, b'{"type":"message"}') + client_frame(frames.PING, b"")
    assert list(s.receive(stream + client_frame(frames.CLOSE, b""))) == [Close(b"", at_once=True)]
