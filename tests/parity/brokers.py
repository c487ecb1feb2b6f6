"""The two brokers that are compared: given by their address, or started for the occasion with settings of brokers.toml."""

import os
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import schema  # noqa: E402
from broker import Broker, NotReady  # noqa: E402, F401
from kafka import Kafka, Missing, jars  # noqa: E402, F401
from scenario import USUAL, Play, Wrong  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
SETTINGS = tomllib.loads((HERE / "brokers.toml").read_text(encoding="utf-8"))
WARM_SECONDS_MAX = 60
NOT_YET = {"COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR"}


def arguments(parser):
    """What says which brokers are meant."""
    parser.add_argument("--bootstrap", metavar="HOST:PORT")
    parser.add_argument("--program", metavar="CORELOG")
    parser.add_argument("--kafka", metavar="HOST:PORT")


@contextmanager
def corelog(args, which=USUAL):
    """The address of the broker that is to be compared."""
    if args.bootstrap:
        yield args.bootstrap
        return
    more = [word for section, keys in SETTINGS[which].items() for key, value in keys.items() for word in ("--set", f"{section}.{key}={written(value)}")]
    with Broker(args.program, TARGET / "test-data/parity", more=more) as broker:
        yield broker.address


def written(value):
    """As both brokers read it."""
    return str(value).lower() if isinstance(value, bool) else value


@contextmanager
def kafka(args, which=USUAL):
    """The address of the Kafka to ask, or None."""
    if args.kafka != "new":
        yield args.kafka
        return
    settings = {key: written(value) for keys in SETTINGS[which].values() for key, value in keys.items()}
    with tempfile.TemporaryDirectory(prefix="parity-") as folder, Kafka(jars(TARGET / "kafka"), Path(folder) / "kafka", settings) as broker:
        yield broker.address


def warm(address, usual):
    """Waits until the coordinators of groups and of producer ids are there. Gives back the versions that are served."""
    class Nothing:
        topics, steps, let, api, slow = {}, [], {}, "", False

    play = Play(Nothing, None, address, usual, "warm")
    deadline = time.monotonic() + WARM_SECONDS_MAX
    groups = [f"warm-{number}" for number in range(64)]

    def waiting():
        yield play.exchange("FindCoordinator", 0, {"Key": "warm"})["ErrorCode"]
        yield play.exchange("FindCoordinator", 1, {"Key": "warm", "KeyType": 1})["ErrorCode"]
        yield play.exchange("InitProducerId", 0, {"TransactionalId": None, "TransactionTimeoutMs": 1000})["ErrorCode"]
        for one in play.exchange("DescribeGroups", 5, {"Groups": groups})["Groups"]:
            yield one["ErrorCode"]

    while any(error in NOT_YET for error in waiting()):
        if time.monotonic() > deadline:
            raise Wrong(f"the coordinators at {address} did not come up")
        time.sleep(0.1)
    keys = play.exchange("ApiVersions", 3, {"ClientSoftwareName": "parity", "ClientSoftwareVersion": "1"})["ApiKeys"]
    return {schema.KEYS[key["ApiKey"]]: (key["MinVersion"], key["MaxVersion"]) for key in keys if key["ApiKey"] in schema.KEYS}
