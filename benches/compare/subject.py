"""What is measured: a server that takes DT's requests on an address of its own."""

import contextlib
import re
import socket


class Subject:
    """A server. `name` is its own, `title` what the report calls it, and `does` what it does with an event."""

    scheme = "hs256"
    connections = None  # as `--connections` says
    # What it answers a request that is authentic, and one whose body was changed.
    answers = (200, 401)
    # Whether memory is that of several processes.
    is_family = False
    # Whether it gets one request again and again, and not each once.
    again = False
    needs_broker = False
    # How many events a second it never takes, which says how many requests a run needs.
    ceiling = 150_000

    def __init__(self, name, title, does):
        self.name, self.title, self.does = name, title, does
        self.process = None
        self.address = None
        self.connections_used = None

    def start(self, folder):
        """Starts it, with all that it writes in `folder`; it takes requests then."""
        raise NotImplementedError

    def settle(self):
        """Waits until what it has taken is where it should be."""

    def stop(self):
        """Ends it. May be called again."""
        if self.process is not None:
            process, self.process = self.process, None
            process.stop()

    def account(self, load, traffic):
        """How many events it answered 200 and then lost; `None` of one that does not keep any. Called after `stop`."""

    def find_address(self, pattern=r"127\.0\.0\.1:\d+"):
        """Waits until it says where it listens."""

        def find():
            found = re.search(pattern, self.process.text())
            return found and found[0]

        return self.process.wait_for(find, "address")

    def wait_until_open(self, address):
        """Waits until it takes connections."""

        def knock():
            with contextlib.suppress(OSError):
                socket.create_connection(address_of(address), timeout=1).close()
                return True

        self.process.wait_for(knock, f"listener on {address}")


def address_of(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def free_port():
    """One that was free just now, for servers that cannot tell which they were given."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


def ask(address, request):
    """Sends a request as it is; the status of the answer."""
    with socket.create_connection(address_of(address), timeout=20) as connection:
        connection.sendall(request)
        line = connection.makefile("rb").readline()
    return int(line.split()[1])


def forge(request):
    """The same request with its body's last letter but a few changed, as long as it was."""
    head, body = request[:-8], request[-8:]
    return head + bytes([body[0] ^ 1]) + body[1:]
