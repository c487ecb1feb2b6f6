"""What happened to one group, in one order: a file that every member and the driver append to.

A line is one JSON object, written with one write(2) to a file opened with O_APPEND. So the kernel orders the lines of all
processes, without a clock: what a member wrote before it sent a request stands above what another wrote because of that
request. A killed member leaves whole lines only. The file is also the evidence when a check fails.

`e` says what happened and `m` to which member; the driver's lines are about a member, or about the broker and have none.

| line | written by | more |
|---|---|---|
| assigned | member | `p`: partitions it got, `g`: generation or epoch where its client tells it, `all`: these are all it has |
| revoked, lost | member | `p`: partitions it gave up, or that were taken from it |
| handled | member | `p`, `o`, `v`: partition, offset and value of a record |
| committed | member | `o`: {partition: offset} that the client says is committed |
| refused | member | `o`: what was to be committed, `why` |
| closed | member | it left the group and ends |
| start, stop, kill, pause, continue, exited | driver | what was done to a member; `i`: its instance; `zombie`: others had its partitions; `status` |
| broker killed, broker up, grow | driver | what was done to the broker and the topic |
| settling, settled | driver | in each partition something that was acknowledged after `settling` is handled |
| asking, told | driver | `told` has `o`: what the broker says is committed, asked for where `asking` stands |
"""

import json
import os


class Journal:
    def __init__(self, path):
        self.path, self.lines, self.read_bytes = path, [], 0
        self.file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o644)

    def write(self, event, **more):
        """A line of the driver's."""
        os.write(self.file, (json.dumps({"e": event, **more}) + "\n").encode())

    def poll(self):
        """Reads what has been added, and returns all lines so far."""
        with open(self.path, "rb") as file:
            file.seek(self.read_bytes)
            added = file.read()
        whole = added.rfind(b"\n") + 1
        self.read_bytes += whole
        self.lines += [json.loads(line) for line in added[:whole].splitlines()]
        return self.lines

    def close(self):
        os.close(self.file)
