"""The demo's car: a real agent.toml in a folder of its own, which is read like anybody's."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.protocol.keys import load_private_key, write_key_pair
from agent.settings import Settings, load

if TYPE_CHECKING:
    from nacl.signing import SigningKey

KEY_ID: Final = "demo-fleet"
BACKEND: Final = "cpu"
AGENT_TOML: Final = """\
# Written by `parkwatt demo`: the product with a simulated car.
[vehicle]
id = "veh-demo"
region = "BR"

[mqtt]
port = {port}
max_payload_bytes = 655360        # a task of 64 files in one message

[[signals]]
shim = "scenario"                 # parked and charging; the demo moves the door itself

[policy]                          # short, so that the demo need not wait
settle_s = 2
grid_proof_s = 1

[[backends]]
use = "cpu"
max_power_w = 25
[backends.options]
threads = 1

[meter]
use = "model"
[meter.options]
watts_per_core = 7

[tasks]
queue_s = 60                      # the fleet's 64 outstanding tasks, on a slow machine too

[models]
source = "{models}"
cache_dir = "{folder}/cache"

[trust]
require_signatures = false        # so that a first task can be sent by hand
task_keys_dir = "{folder}/keys"

[store]
path = "{folder}/agent.db"

[control]
socket = "{folder}/agent.sock"
"""


def write(folder: Path, *, port: int, models: Path) -> Settings:
    """Write agent.toml and a fresh pair of fleet keys into `folder`, and read the configuration."""
    write_key_pair(folder / "keys", KEY_ID)
    path = folder / "agent.toml"
    path.write_text(AGENT_TOML.format(port=port, folder=folder, models=models.absolute().as_uri()))
    return load(path, environ={})


def signing_key(folder: Path) -> "SigningKey":
    """The private key that the demo's fleet signs with."""
    return load_private_key(folder / "keys" / f"{KEY_ID}.key")
