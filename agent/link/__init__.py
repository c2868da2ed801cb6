"""The MQTT 5 connection that both ends of the wire use; nothing else in the product imports aiomqtt or paho.

It knows nothing of tasks or cars: topics and bytes only. `wire.py` is the libraries' side, with what is
corrected in them; `connection.py` is one connection; `link.py` makes the next one.
"""

from agent.link import lean_paho  # noqa: F401 - before anything else imports paho
from agent.link.errors import LinkDown, PublishRefused, TooLarge
from agent.link.inbound import Inbound
from agent.link.link import Link, LinkStatus
from agent.link.options import Hints, LinkOptions, Will
from agent.link.retry import Outcome, Retry

__all__ = [
    "Hints",
    "Inbound",
    "Link",
    "LinkDown",
    "LinkOptions",
    "LinkStatus",
    "Outcome",
    "PublishRefused",
    "Retry",
    "TooLarge",
    "Will",
]
