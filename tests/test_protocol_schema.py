"""The published documents say what the code does, and the code's own messages keep to them."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from joserfc import jws as oracle
from joserfc.jwk import OKPKey

from agent.protocol import examples, framing, jws, schema
from agent.protocol.reasons import Refused
from agent.protocol.topics import Topics

DOCS = Path(__file__).parent.parent / "docs" / "protocol"
CONTRACT_TASK = Path(__file__).with_name("contract_task.json")
KINDS = [(topic, kind) for topic, kinds in schema.TOPIC_MESSAGES.items() for kind in kinds]
EXAMPLES = [(topic, example) for topic, kind in KINDS for example in schema.EXAMPLES[kind]]


def published(name: str) -> Any:
    return json.loads((DOCS / name).read_text())


def validator(topic: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(published(f"{topic}.schema.json"))


def on_the_wire(message: msgspec.Struct) -> Any:
    return json.loads(framing.encode(message))


@pytest.mark.parametrize("name", schema.documents())
def test_the_published_documents_are_current(name: str) -> None:
    hint = "run `python -m agent.protocol.schema docs/protocol`"
    assert published(name) == json.loads(json.dumps(schema.documents()[name])), hint


def test_nothing_else_is_published_beside_the_page_for_people() -> None:
    assert {path.name for path in DOCS.iterdir()} == {"README.md", *schema.documents()}


def test_the_command_writes_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["schema", str(tmp_path / "new")])
    schema.main()
    for name in schema.documents():
        assert (tmp_path / "new" / name).read_bytes() == (DOCS / name).read_bytes()


@pytest.mark.parametrize("topic", schema.TOPIC_MESSAGES)
def test_every_schema_is_one(topic: str) -> None:
    jsonschema.Draft202012Validator.check_schema(published(f"{topic}.schema.json"))


def test_the_task_of_the_contract_keeps_to_its_schema() -> None:
    validator("task").validate(json.loads(CONTRACT_TASK.read_text()))


@pytest.mark.parametrize(("topic", "example"), EXAMPLES)
def test_our_messages_keep_to_their_schema(topic: str, example: msgspec.Struct) -> None:
    validator(topic).validate(on_the_wire(example))


@pytest.mark.parametrize(
    ("topic", "path", "value"),
    [
        ("task", ["attempt"], 0),
        ("task", ["issued_at"], "2026-11-22T01:00:00+02:00"),
        ("task", ["id"], "a b"),
        ("task", ["rows"], [0]),
        ("task", ["model", "format"], "pickle"),
        ("task", ["inputs", 0, "datatype"], "BYTES"),
        ("task", ["inputs", 0, "name"], "x\x1b[2J"),
        ("control", ["type"], "reboot"),
        ("control", ["results", 0], ["a", 1, 0]),
        ("event", ["reason", "code"], 7),
        ("event", ["reason", "name"], "bored"),
        ("result", ["usage", "energy_source"], "guess"),
        ("state", ["mode"], "asleep"),
        ("state", ["online"], None),
    ],
)
def test_schema_and_decoder_refuse_the_same(topic: str, path: list[str | int], value: object) -> None:
    whole = {"task": examples.TASK, "control": examples.SETTLED, "event": examples.EVENT}
    message = on_the_wire({**whole, "result": examples.RESULT, "state": examples.STATE}[topic])
    node = message
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    assert not validator(topic).is_valid(message)
    with pytest.raises(Refused):
        getattr(framing, f"decode_{topic}")(json.dumps(message).encode())


def test_asyncapi_examples_keep_to_its_schemas() -> None:
    document = published("asyncapi.json")
    for name, message in document["components"]["messages"].items():
        whole = {**document, "$ref": f"#/components/schemas/{name}"}
        for example in message["examples"]:
            jsonschema.Draft7Validator(whole).validate(example["payload"])
    tuples = document["components"]["schemas"]["Settled"]["properties"]["results"]["items"]
    assert not jsonschema.Draft7Validator(tuples).is_valid(["a", 0, 1, 2])


def test_asyncapi_has_every_topic_of_a_vehicle_and_nothing_else() -> None:
    channels = published("asyncapi.json")["channels"].values()
    values = {"root": "fleet/v1", "country": "br", "vehicle": "veh-0001"}
    addresses = {re.sub(r"\{(\w+)\}", lambda match: values[match[1]], c["address"]) for c in channels}
    topics = Topics("fleet/v1", "BR-SP", "veh-0001")
    assert addresses == {topics.task, topics.control, topics.state, topics.event, topics.result}


def test_every_kind_of_message_has_an_example() -> None:
    assert {type(example) for _, example in EXAMPLES} == {kind for _, kind in KINDS}


def test_the_published_signed_task_verifies_here_and_in_another_implementation() -> None:
    vector = published("signed-task.json")
    public_key = base64.b64decode(vector["public_key_base64"])
    line, body = jws.split(base64.b64decode(vector["payload_base64"]))
    assert line is not None
    assert jws.Verifier({vector["kid"]: public_key}).verify(line, body) == vector["kid"]
    x = base64.urlsafe_b64encode(public_key).rstrip(b"=").decode()
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})
    oracle.deserialize_compact(line, key, algorithms=["Ed25519"], payload=body)
    task, tail = framing.decode_task(body)
    assert task == examples.TASK
    assert tail == examples.TASK_TAIL
