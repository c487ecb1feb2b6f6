"""What the Python applications share: their arguments, what they tell, and when they commit. `journal.py` has the lines."""

import json
import os
import signal
import sys
import time

HANDLE_SECONDS = 0.002
COMMIT_AFTER_RECORDS = 20
COMMIT_AFTER_SECONDS = 0.3
POLL_MS = 100
FENCED = 4


class App:
    """BOOTSTRAP TOPIC GROUP PROTOCOL MEMBER SESSION-MS INSTANCE. SIGTERM asks it to commit, leave and end with status 0; it ends
    with FENCED when another has taken its instance. INSTANCE is empty for a member that is not static."""

    def __init__(self):
        self.bootstrap, self.topic, self.group, self.protocol, self.member, session, self.instance = sys.argv[1:]
        self.session_ms = int(session)
        self.heartbeat_ms = self.session_ms // 6
        self.stopping = False
        self.uncommitted, self.count, self.since = {}, 0, time.monotonic()
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        self.stopping = True

    def say(self, event, **more):
        os.write(1, (json.dumps({"m": self.member, "e": event, **more}) + "\n").encode())

    def assigned(self, partitions, **more):
        self.say("assigned", p=sorted(partitions), **more)

    def handle(self, partition, offset, value):
        """The caller has waited HANDLE_SECONDS, in its own way."""
        self.say("handled", p=partition, o=offset, v=value.decode())
        self.uncommitted[partition] = offset + 1
        self.count += 1

    def commit_due(self):
        if not self.uncommitted:
            self.since = time.monotonic()
        return self.count >= COMMIT_AFTER_RECORDS or time.monotonic() - self.since >= COMMIT_AFTER_SECONDS

    def take(self, partitions=None):
        """What is to be committed now, of all partitions or of these."""
        self.count, self.since = 0, time.monotonic()
        return {p: self.uncommitted.pop(p) for p in (list(self.uncommitted) if partitions is None else partitions) if p in self.uncommitted}

    def committed(self, offsets):
        self.say("committed", o=offsets)

    def refused(self, offsets, why):
        """What was not committed is due again, unless the partition is given up or went on meanwhile."""
        for partition, offset in offsets.items():
            self.uncommitted.setdefault(partition, offset)
        self.say("refused", o=offsets, why=str(why)[:200])

    def given_up(self, event, partitions):
        self.take(partitions)
        self.say(event, p=sorted(partitions))
