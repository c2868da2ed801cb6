"""The MQTT 5 connection that both ends of the wire use; aiomqtt and paho are imported nowhere else.

It knows nothing of tasks or cars: topics and bytes only. What is corrected in the libraries underneath
stands in `connection.py` and `properties.py`, one comment each.
"""

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
