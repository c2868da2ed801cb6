"""A message is taken exactly as the contract has it, or refused with a code; it never does anything else."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol import examples, framing, messages
from agent.protocol.reasons import TEXT_MAX_CHARS, Reason, Refused

DECODERS: dict[str, Callable[[bytes], object]] = {
    "task": framing.decode_task,
    "control": framing.decode_control,
    "event": framing.decode_event,
    "result": framing.decode_result,
    "state": framing.decode_state,
}

CONTRACT_TASK = Path(__file__).with_name("contract_task.json").read_text()


def task(**changes: Any) -> bytes:
    return json.dumps({**json.loads(CONTRACT_TASK), **changes}).encode()


def refusal(body: bytes, topic: str = "task") -> str:
    with pytest.raises(Refused) as refused:
        DECODERS[topic](body)
    assert refused.value.reason is Reason.MALFORMED
    assert refused.value.text.isprintable()
    assert len(refused.value.text) <= 6 * TEXT_MAX_CHARS
    return refused.value.text


def code_of(topic: str, body: bytes) -> Reason | None:
    try:
        DECODERS[topic](body)
    except Refused as refused:
        return refused.reason
    return None


def test_the_task_of_the_contract_is_read_as_it_is_written() -> None:
    read, tail = framing.decode_task(task() + b"\n" + bytes(65536))
    assert read.model.format is messages.ModelFormat.ONNX
    assert read.issued_at == dt.datetime(2026, 11, 22, 1, 0, tzinfo=dt.UTC)
    assert read.inputs[0].parameters.binary_data_size == 65536
    assert read.outputs[0].parameters.binary_data
    assert read.rows == (0, 8)
    assert len(tail) == 65536


@pytest.mark.parametrize(
    ("topic", "message", "tails"),
    [
        ("task", examples.TASK, [examples.TASK_TAIL]),
        ("task", examples.TASK_IN_JSON, []),
        ("result", examples.RESULT, [bytes(4), memoryview(bytes(4))]),
    ],
)
def test_a_message_and_its_tensors_come_back_as_they_were_sent(
    topic: str, message: msgspec.Struct, tails: list[bytes | memoryview]
) -> None:
    body = framing.encode(message, tails)
    assert DECODERS[topic](body) == (message, b"".join(tails))


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("control", examples.CANCEL),
        ("control", examples.DRAIN),
        ("control", examples.RESUME),
        ("control", examples.SETTLED),
        ("event", examples.EVENT),
        ("state", examples.STATE),
        ("state", examples.OFFLINE),
    ],
)
def test_a_message_without_tensors_comes_back_as_it_was_sent(topic: str, message: msgspec.Struct) -> None:
    assert DECODERS[topic](framing.encode(message)) == message


def test_the_wire_forms_are_those_of_the_contract() -> None:
    assert framing.encode(examples.OFFLINE) == b'{"vehicle":"veh-0001","boot":17,"online":false}'
    assert json.loads(framing.encode(examples.SETTLED)) == {
        "type": "settled",
        "audience": "veh-0001",
        "issued_at": "2026-11-22T01:00:00Z",
        "results": [["01JD9Y6MZX8Q4T2B7C5E3F1G0H", 1, 0, 2]],
    }
    event = json.loads(framing.encode(examples.EVENT))
    assert event["reason"] == {"code": 1001, "name": "owner_present", "text": "driver door open"}
    assert json.loads(framing.encode(examples.STATE))["online"] is True


def test_a_tail_is_not_copied() -> None:
    body = task() + b"\n" + bytes(65536)
    _, tail = framing.decode_task(body)
    assert tail.obj is body


def test_a_task_may_come_from_a_shell_with_a_line_end_or_without() -> None:
    for end in (b"", b"\n", b"\r\n"):
        _, tail = framing.decode_task(framing.encode(examples.TASK_IN_JSON) + end)
        assert len(tail) == 0


def test_json_over_several_lines_gets_told_what_to_do() -> None:
    assert "on one line" in refusal(json.dumps(json.loads(CONTRACT_TASK), indent=2).encode())


def test_a_message_without_tensors_has_no_tail() -> None:
    assert "3 bytes follow" in refusal(framing.encode(examples.EVENT) + b"\n\x00\x01\x02", "event")


def test_unknown_fields_are_ignored() -> None:
    body = task(traceparent="00-ab", model_owner={"deep": [1, {"x": None}]}, serial=0)
    for serial in (b"7", b"9" * 5000, b"1e999"):
        read, _ = framing.decode_task(body.replace(b'"serial": 0', b'"serial": ' + serial))
        assert read.id == "01JD"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"id": "a b"}, "$.id"),
        ({"id": ""}, "$.id"),
        ({"id": "a" * 65}, "$.id"),
        ({"id": "01JD\n"}, "$.id"),
        ({"id": "\x1b[2J"}, "$.id"),
        ({"id": "../../etc"}, "$.id"),
        ({"id": 5}, "$.id"),
        ({"audience": "veh/#"}, "$.audience"),
        ({"attempt": 0}, "$.attempt"),
        ({"attempt": 1.0}, "$.attempt"),
        ({"attempt": "1"}, "$.attempt"),
        ({"attempt": True}, "$.attempt"),
        ({"attempt": 10**400}, "$.attempt"),
        ({"lease_s": 0}, "$.lease_s"),
        ({"lease_s": 86_401}, "$.lease_s"),
        ({"lease_s": "60"}, "$.lease_s"),
        ({"priority": 101}, "$.priority"),
        ({"residency": ["br"]}, "$.residency"),
        ({"residency": ["BR\n"]}, "$.residency"),
        ({"rows": [0]}, "$.rows"),
        ({"rows": [-1, 2]}, "$.rows"),
        ({"inputs": []}, "$.inputs"),
        ({"inputs": None}, "$.inputs"),
        ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1]}]}, "BYTES"),
        ({"inputs": [{"name": "x", "datatype": "INT8", "shape": [-1]}]}, "shape"),
        ({"inputs": [{"name": "x", "datatype": "INT8", "shape": [0]}]}, "shape"),
        ({"inputs": [{"name": "x", "datatype": "INT8", "shape": [2**31 + 1]}]}, "shape"),
        ({"inputs": [{"name": "x", "datatype": "INT8", "shape": [1] * 9}]}, "shape"),
        ({"inputs": [{"name": "x\x1b[31m", "datatype": "INT8", "shape": [1]}]}, "name"),
        ({"inputs": [{"name": "x\n", "datatype": "INT8", "shape": [1]}]}, "name"),
        ({"inputs": [{"name": "", "datatype": "INT8", "shape": [1]}]}, "name"),
        ({"model": {"name": "m", "version": "1", "sha256": "0" * 64, "format": "pickle"}}, "pickle"),
        ({"model": {"name": "m", "version": "1", "sha256": "../" + "0" * 61, "format": "onnx"}}, "sha256"),
        ({"model": {"name": "m", "version": "1", "sha256": "A" * 64, "format": "onnx"}}, "sha256"),
        ({"inputs_url": "https://example.org/x"}, "inputs_sha256"),
        ({"inputs_sha256": "0" * 64}, "inputs_url"),
        ({"outputs": [{"name": "a"}, {"name": "a"}]}, "twice"),
        ({"limits": {"runtime_s": -1}}, "runtime_s"),
    ],
    ids=str,
)
def test_a_task_that_breaks_the_contract_is_refused_and_told_where(
    changes: dict[str, Any], told: str
) -> None:
    assert told in refusal(task(**changes))


@pytest.mark.parametrize(
    "time", ["2026-11-22T01:00:00Z", "2026-11-22T01:00:00+00:00", "2026-11-22T01:00:00.25Z"]
)
def test_a_time_in_utc_is_taken_and_knows_that_it_is_utc(time: str) -> None:
    read, _ = framing.decode_task(task(issued_at=time))
    assert read.issued_at.utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize(
    "time",
    [
        "2026-11-22T01:00:00",
        "2026-11-22T01:00:00+02:00",
        "2026-11-22",
        "2026-13-22T01:00:00Z",
        "9999-12-31T23:59:59.9999999Z",
        1_795_309_200,
        None,
    ],
)
def test_a_time_that_is_not_utc_is_refused(time: object) -> None:
    assert "issued_at" in refusal(task(issued_at=time))


@pytest.mark.parametrize("zone", [None, ZoneInfo("America/Sao_Paulo")])
def test_our_own_side_cannot_say_a_time_in_another_zone_either(zone: ZoneInfo | None) -> None:
    with pytest.raises(ValueError, match="`issued_at` should be in UTC"):
        messages.Drain("veh-0001", dt.datetime(2026, 11, 22, 1, 0, tzinfo=zone))


def test_a_reason_has_the_name_of_its_code() -> None:
    with pytest.raises(ValueError, match="1001 has the name `owner_present`"):
        messages.ReasonInfo(Reason.OWNER_PRESENT, "draining")
    event = json.loads(framing.encode(examples.EVENT))
    event["reason"]["name"] = "draining"
    assert "owner_present" in refusal(json.dumps(event).encode(), "event")
    event["reason"] = {"code": 1999, "name": "from_the_future"}
    assert "1999" in refusal(json.dumps(event).encode(), "event")


def test_a_reason_may_quote_anybody_and_prints_on_one_line_on_both_ends_of_the_wire() -> None:
    reason = messages.ReasonInfo.of(Reason.MODEL_INVALID, "operator \x1b[2J\u202e\n" + "\x07" * 5000)
    assert reason.text.startswith("operator \\u001b[2J\\u202e\\u000a\\u0007")
    assert reason.text.isprintable()
    assert len(reason.text) == messages.REASON_MAX_CHARS
    event = json.loads(framing.encode(msgspec.structs.replace(examples.EVENT, reason=reason)))
    event["reason"]["text"] = "\x1b]0;owned\x07" + "a" * 5000
    heard = framing.decode_event(json.dumps(event).encode()).reason
    assert heard is not None
    assert heard.text.startswith("\\u001b]0;owned")
    assert len(heard.text) == messages.REASON_MAX_CHARS
    assert (
        framing.decode_event(framing.encode(msgspec.structs.replace(examples.EVENT, reason=heard))).reason
        == heard
    )


def test_a_result_covers_at_least_one_row() -> None:
    result = json.loads(framing.encode(examples.RESULT))
    result["rows"] = [2, 2]
    assert "from < to" in refusal(json.dumps(result).encode(), "result")


@pytest.mark.parametrize("online", ['"online":1', '"online":null', '"online":"false"'])
def test_a_state_says_plainly_whether_it_is_online(online: str) -> None:
    refusal(b'{"vehicle":"veh-0001","boot":17,%b}' % online.encode(), "state")


def test_a_goodbye_is_one_whatever_else_it_says() -> None:
    said = b'{"vehicle":"true-1","boot":17,"online":false,"last":{"online":true},"mode":"ready"}'
    assert framing.decode_state(said) == messages.Offline("true-1", 17)


def test_a_goodbye_is_no_state() -> None:
    refusal(b'{"vehicle":"veh-0001","boot":17,"online":true}', "state")


@pytest.mark.parametrize(
    "doubled",
    [
        b'"id":"other",',
        b'"\\u0069d":"other",',
        b'"model":{"name":"m","name":"n"},',
        b'"unknown":{"a":[{"b":1,"b":2}]},',
    ],
)
def test_a_member_that_stands_twice_is_refused_at_any_depth(doubled: bytes) -> None:
    assert refusal(b"{" + doubled + task()[1:])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"{}",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b"\xef\xbb\xbf{}",
        b"\x00",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"parameters":' + b'{"a":' * 100_000,
        b'{"unknown":' + b"[" * 100_000,
        b'{"id":"\xff"}',
        b'{"unknown":"\xff"}',
        b'{"id":"\\ud800"}',
        b'{"lease_s":NaN}',
        b'{"lease_s":Infinity}',
        b'{"lease_s":1e999}',
        b'{"attempt":' + b"9" * 100_000 + b"}",
        b'{"unknown":' + b"9" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("topic", DECODERS)
def test_hostile_bytes_get_a_code_on_every_topic(topic: str, body: bytes) -> None:
    refusal(body, topic)


@pytest.mark.parametrize(
    "hostile",
    [
        {"parameters": json.loads("[" * 500 + "]" * 500)},
        {"unknown": "\x00\x1b[2J"},
        {"parameters": {"a": 10**300}},
    ],
)
def test_odd_but_legal_content_is_taken_or_refused_without_harm(hostile: dict[str, Any]) -> None:
    assert code_of("task", task(**hostile)) in {None, Reason.MALFORMED}


def test_what_the_other_side_wrote_cannot_reach_a_terminal_or_fill_a_log() -> None:
    model = {"name": "m", "version": "1", "sha256": "0" * 64, "format": "\x1b]0;owned\x07" * 1000}
    assert "owned" in refusal(task(model=model))
    refused = Refused(Reason.INPUT_FETCH, "host \x1b]0;owned\x07\u202e said\n" + "no" * 1000)
    assert refused.text.startswith("host \\u001b]0;owned\\u0007\\u202e said\\u000a")
    assert str(refused).startswith("140 input_fetch: host")
    assert len(refused.text) < 2 * TEXT_MAX_CHARS


@given(body=st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: b"{" + rest))
def test_random_bytes_are_refused_and_nothing_else_happens(body: bytes) -> None:
    for topic in DECODERS:
        refusal(body, topic)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.datetimes().map(lambda time: f"{time.isoformat()}Z"),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3),
    max_leaves=10,
)
GOOD = {
    topic: json.loads(framing.encode(message))
    for topic, message in {
        "task": examples.TASK_IN_JSON,
        "control": examples.SETTLED,
        "event": examples.EVENT,
        "result": examples.RESULT,
        "state": examples.STATE,
    }.items()
}


@given(data=st.data(), topic=st.sampled_from(sorted(DECODERS)), value=JSON)
def test_a_good_message_with_one_member_replaced_is_taken_or_refused(
    data: st.DataObject, topic: str, value: object
) -> None:
    message = json.loads(json.dumps(GOOD[topic]))
    node = message
    name = data.draw(st.sampled_from(sorted(node)))
    while isinstance(node[name], dict) and node[name] and data.draw(st.booleans()):
        node = node[name]
        name = data.draw(st.sampled_from(sorted(node)))
    node[name] = value
    assert code_of(topic, json.dumps(message).encode()) in {None, Reason.MALFORMED}


UTC_TIMES = st.datetimes(timezones=st.just(dt.UTC))
IDS = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
ROWS = st.integers(0, 2**31)


@given(
    event=st.builds(
        messages.Event,
        id=IDS,
        attempt=st.integers(1, 2**53),
        at=UTC_TIMES,
        boot=st.integers(0, 2**53),
        seq=st.integers(0, 2**53),
        rows_done=ROWS,
        rows_total=ROWS,
        reason=st.none()
        | st.builds(
            messages.ReasonInfo.of,
            st.sampled_from(Reason),
            st.text(st.characters(exclude_categories=["Cs"])),
            st.none() | UTC_TIMES,
        ),
    )
)
def test_every_event_survives_the_wire(event: messages.Event) -> None:
    body = framing.encode(event)
    assert framing.decode_event(body) == event
    assert b"\n" not in body
    assert f'"at":"{event.at.isoformat().removesuffix("+00:00")}Z"'.encode() in body


@given(tail=st.binary(max_size=300), rows=st.tuples(ROWS, ROWS).filter(lambda rows: rows[0] < rows[1]))
def test_every_result_survives_the_wire_with_any_tail(tail: bytes, rows: tuple[int, int]) -> None:
    result = msgspec.structs.replace(examples.RESULT, rows=rows)
    read, same = framing.decode_result(framing.encode(result, [tail[:7], tail[7:]]))
    assert read == result
    assert same == tail
