"""The published form of the wire contract: `python -m agent.protocol.schema docs/protocol`.

JSON Schemas (2020-12) of the JSON line of each topic, an AsyncAPI 3 document over all of them, and one
signed task with its key, for whoever writes the other end in another language.
"""

import base64
import inspect
import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from nacl.signing import SigningKey

from agent.protocol import examples, framing, jws, messages
from agent.protocol.reasons import Reason
from agent.protocol.topics import Topics

VERSION: Final = "1.0.0"
"""Of the contract, whose topics begin with `fleet/v1` by default; not of the package."""

TOPIC_MESSAGES: Final[dict[str, tuple[type[msgspec.Struct], ...]]] = {
    "task": (messages.Task,),
    "control": (messages.Cancel, messages.Drain, messages.Resume, messages.Settled),
    "state": (messages.State, messages.Offline),
    "event": (messages.Event,),
    "result": (messages.Result,),
}
TO_THE_CAR: Final = frozenset({"task", "control"})
RETAINED: Final = frozenset({"state"})
BINARY: Final = frozenset({messages.Task, messages.Result})

EXAMPLES: Final[dict[type[msgspec.Struct], tuple[msgspec.Struct, ...]]] = {
    messages.Task: (examples.TASK, examples.TASK_IN_JSON),
    messages.Cancel: (examples.CANCEL,),
    messages.Drain: (examples.DRAIN,),
    messages.Resume: (examples.RESUME,),
    messages.Settled: (examples.SETTLED,),
    messages.State: (examples.STATE,),
    messages.Offline: (examples.OFFLINE,),
    messages.Event: (examples.EVENT,),
    messages.Result: (examples.RESULT,),
}

FRAMING: Final = """\
A body is one line of JSON (UTF-8). The schemas describe this line. Where a message has tensors with \
`binary_data_size` (the binary extension of the Open Inference Protocol), a newline follows and then their \
raw little-endian bytes, row-major, in the order of the message, with nothing between or behind them. \
Times are RFC 3339 in UTC. Unknown fields are ignored; unknown enum values and repeated members are refused."""

SIGNATURE: Final = """\
Messages to the car are signed. A signed body is preceded by one more line: a detached JWS (RFC 7515 \
appendix F, RFC 7797) `header..signature`, base64url without padding, over `header`, a full stop and every \
byte that follows the line. The protected header is exactly \
`{"alg":"Ed25519","kid":"…","b64":false,"crit":["b64"]}` (RFC 9864). A body that starts with `{` is \
unsigned. `signed-task.json` holds a signed task with its key."""


def documents() -> dict[str, dict[str, Any]]:
    """Every published document by file name."""
    schemas = {f"{topic}.schema.json": json_schema(topic) for topic in TOPIC_MESSAGES}
    return {**schemas, "asyncapi.json": asyncapi(), "signed-task.json": signed_task()}


def json_schema(topic: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of the JSON line of every message on a topic."""
    references, components = _components(TOPIC_MESSAGES[topic], "#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:parkwatt:protocol:{topic}",
        "title": f"parkwatt {topic}",
        **(references[0] if len(references) == 1 else {"anyOf": references}),
        "$defs": components,
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document, from the vehicle's point of view: it receives tasks."""
    kinds = [kind for topic in TOPIC_MESSAGES.values() for kind in topic]
    _, components = _components(tuple(kinds), "#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "id": "urn:parkwatt:protocol",
        "info": {
            "title": "parkwatt",
            "version": VERSION,
            "description": f"{FRAMING}\n\n{SIGNATURE}",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": framing.CONTENT_TYPE,
        "servers": {"broker": {"host": "127.0.0.1:1883", "protocol": "mqtt", "protocolVersion": "5"}},
        "channels": {topic: _channel(topic) for topic in TOPIC_MESSAGES},
        "operations": {topic: _operation(topic) for topic in TOPIC_MESSAGES},
        "components": {
            "messages": {kind.__name__: _message(kind) for kind in kinds},
            "schemas": _draft_07(components),
        },
    }


def signed_task() -> dict[str, Any]:
    """A task with its tail, signed with a published key: what any implementation can be held against."""
    key = SigningKey(bytes(range(32)))
    body = framing.encode(examples.TASK, [examples.TASK_TAIL])
    return {
        "description": f"{SIGNATURE} Ed25519 has one signature for a key and a body: this one.",
        "kid": "example",
        "private_key_base64": base64.b64encode(bytes(key)).decode(),
        "public_key_base64": base64.b64encode(bytes(key.verify_key)).decode(),
        "payload_base64": base64.b64encode(jws.sign(body, key, "example")).decode(),
    }


def _channel(topic: str) -> dict[str, Any]:
    address = getattr(Topics("{root}", "ZZ", "{vehicle}"), topic).replace("/zz/", "/{country}/")
    return {
        "address": address,
        "messages": {
            kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}
            for kind in TOPIC_MESSAGES[topic]
        },
        "parameters": {
            "root": {"description": "`mqtt.root` of the vehicle's configuration.", "examples": ["fleet/v1"]},
            "country": {"description": "ISO 3166-1 alpha-2 of `vehicle.region`, in lower case."},
            "vehicle": {"description": "The vehicle's id: 1-64 of A-Z a-z 0-9 _ -."},
        },
    }


def _operation(topic: str) -> dict[str, Any]:
    return {
        "action": "receive" if topic in TO_THE_CAR else "send",
        "channel": {"$ref": f"#/channels/{topic}"},
        "bindings": {"mqtt": {"qos": 1, "retain": topic in RETAINED, "bindingVersion": "0.2.0"}},
    }


def _message(kind: type[msgspec.Struct]) -> dict[str, Any]:
    signed = any(kind in TOPIC_MESSAGES[topic] for topic in TO_THE_CAR)
    notes = ["Signed."] if signed else []
    if kind in BINARY:
        notes.append("A binary tail may follow the JSON.")
    return {
        "name": kind.__name__,
        "title": kind.__name__,
        "summary": inspect.getdoc(kind),
        "description": " ".join([*notes, "See the framing in this document's description."]),
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "examples": [
            {"name": f"{kind.__name__}-{number}", "payload": msgspec.to_builtins(example)}
            for number, example in enumerate(EXAMPLES[kind], start=1)
        ],
    }


def _components(
    kinds: tuple[type[msgspec.Struct], ...], reference: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A reference to each of the kinds, and the schemas of these and of all that they are made of."""
    references, components = msgspec.json.schema_components(kinds, ref_template=reference)
    if "Reason" in components:
        components["Reason"]["oneOf"] = [{"const": code.value, "title": code.label} for code in Reason]
        del components["Reason"]["enum"]
    return list(references), {name: _published(components[name]) for name in sorted(components)}


def _published(node: Any) -> Any:
    """Patterns end as JSON Schema ends them, docstrings lose their indentation."""
    if isinstance(node, list):
        return [_published(part) for part in node]
    if not isinstance(node, dict):
        return node
    published = {name: _published(part) for name, part in node.items()}
    if isinstance(node.get("pattern"), str):
        published["pattern"] = node["pattern"].replace(r"\Z", "$")
    if isinstance(node.get("description"), str):
        published["description"] = inspect.cleandoc(node["description"])
    return published


def _draft_07(node: Any) -> Any:
    """AsyncAPI's schemas are a superset of draft 07, where a tuple is written in another way."""
    if isinstance(node, list):
        return [_draft_07(part) for part in node]
    if not isinstance(node, dict):
        return node
    older = {name: _draft_07(part) for name, part in node.items()}
    if "prefixItems" in older:
        older["items"], older["additionalItems"] = older.pop("prefixItems"), False
    return older


def main() -> None:
    """Write every document into the directory that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m agent.protocol.schema DIR")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (directory / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
