"""Network namespaces wired to each other: what runs in one reaches the others by their addresses alone."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HOLD = ["unshare", "--net", "sleep", "infinity"]
"""A namespace lasts as long as a process in it, and all wires to it go with it."""


class Wires:
    """A switch, and the namespaces plugged into it. It is not connected to this machine."""

    NETWORK = "10.77.0"

    def __init__(self, open_: ExitStack) -> None:
        self._open = open_
        self._switch = self._hold()
        self._inside(self._switch, "ip link add switch type bridge", "ip link set switch up")
        self._places: dict[str, int] = {}

    def plug(self, number: int) -> str:
        """Make a namespace; returns its address."""
        place, address = self._hold(), f"{self.NETWORK}.{number}"
        self._inside(
            self._switch,
            f"ip link add wire{number} type veth peer name eth0 netns {place}",
            f"ip link set wire{number} master switch up",
        )
        self._inside(
            place,
            f"ip address add {address}/24 dev eth0",
            "ip link set eth0 up",
            "ip link set lo up",
            "ip route add default dev eth0",  # by which Ray finds out its own address
        )
        self._places[address] = place
        return address

    def at(self, address: str) -> list[str]:
        """What to put before a command so that it runs there."""
        return _enter(self._places[address])

    def cut(self, address: str) -> None:
        """Nothing gets there any more, and nobody is told so."""
        number = address.rpartition(".")[2]
        self._inside(self._switch, f"ip link set wire{number} down")

    def _hold(self) -> int:
        holder = subprocess.Popen(HOLD)
        self._open.callback(holder.wait)
        self._open.callback(holder.kill)
        while holder.poll() is None and _network(holder.pid) == _network("self"):
            continue
        return holder.pid

    def _inside(self, place: int, *commands: str) -> None:
        for command in commands:
            subprocess.run([*_enter(place), *command.split()], check=True, capture_output=True)


@contextmanager
def wires() -> Iterator[Wires]:
    with ExitStack() as open_:
        yield Wires(open_)


def may_wire() -> bool:
    """Whether a process may have a network of its own, wired to others."""
    try:
        with wires() as made:
            made.plug(2)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _enter(place: int) -> list[str]:
    return ["nsenter", "--net", "--target", str(place)]


def _network(process: int | str) -> str:
    return str(Path(f"/proc/{process}/ns/net").readlink())
