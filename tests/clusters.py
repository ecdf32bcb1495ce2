"""Ray clusters of several nodes on this machine, each with an address of its own."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.runs import ROOT, wait_until
from tests.wires import Wires

OPTIONS = ("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=150000000")
"""As many nodes share this machine."""
FOLDER = r"(/tmp/ray-\w+)/ray/"
HIDE = 'mount -t tmpfs none "$1"; shift; exec "$@"'


def may_hide_folders() -> bool:
    """Whether a process may have a file system of its own."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


class Cluster:
    """Nodes started by scripts/ray/start_node.sh, as on Slurm."""

    def __init__(self, folder: Path, network: Wires | None = None) -> None:
        """`network`: each node is in a namespace of it; none: all share that of this machine."""
        self._folder = folder
        self._network = network
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.address = f"{network.NETWORK}.2:6379" if network else f"127.0.0.2:{_free_port()}"
        self.environment = {"RAY_AUTH_TOKEN_PATH": str(token)}
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def add(self, cpus: int, gpus: int = 0, hidden: Path | None = None) -> str:
        """Start a node and return its address; on that node, the folder `hidden` is another one."""
        number = len(self._nodes) + 2
        address = self._network.plug(number) if self._network else f"127.0.0.{number}"
        role = "head" if number == 2 else "join"
        room = f"--num-cpus={cpus}", f"--num-gpus={gpus}"
        command = ["bash", "scripts/ray/start_node.sh", role, self.address, *room, *OPTIONS]
        if role == "join":
            command.append(f"--node-ip-address={address}")
        if hidden is not None:
            command = ["unshare", "-m", "bash", "-c", HIDE, "-", str(hidden), *command]
        command = [*self.at(address), *command]
        # what a driver sets for a Ray of its own is set here too, once a test has imported that
        outside = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        with self.log(address).open("wb") as log:
            self._nodes[address] = subprocess.Popen(
                command,
                cwd=ROOT,
                env=outside | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return address

    def at(self, address: str) -> list[str]:
        """What to put before a command so that it runs on that node."""
        return self._network.at(address) if self._network else []

    def log(self, address: str) -> Path:
        return self._folder / f"{address}.log"

    def up(self) -> bool:
        """Whether all nodes have started; none has ended."""
        ended = {
            address: self.log(address) for address, node in self._nodes.items() if node.poll() is not None
        }
        assert not ended
        return all("Ray runtime started" in self.log(address).read_text() for address in self._nodes)

    def kill(self, address: str) -> None:
        """As when a machine loses its power; what it had on its disk goes too."""
        running = self._below(self._nodes[address].pid)
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for folder in {name for title in running.values() for name in re.findall(FOLDER, title)}:
            shutil.rmtree(folder, ignore_errors=True)

    def processes(self) -> list[str]:
        """Command lines of what the nodes run."""
        for node in self._nodes.values():
            node.poll()  # one that has ended is listed until somebody asks
        return [title for node in self._nodes.values() for title in self._below(node.pid).values()]

    def _below(self, pid: int) -> dict[int, str]:
        """Command lines of a process and all that it has started, by their ids."""
        listed = subprocess.check_output(["ps", "-eww", "-o", "pid=,ppid=,args="], text=True).splitlines()
        rows = [(int(row.split()[0]), int(row.split()[1]), row.split(None, 2)[2]) for row in listed]
        found, size = {pid}, 0
        while size < len(found):
            size = len(found)
            found |= {child for child, parent, _ in rows if parent in found}
        return {child: title for child, _, title in rows if child in found}

    def folder(self) -> Path:
        """Where the files of the one node lie."""
        [found] = {name for title in self.processes() for name in re.findall(FOLDER, title)}
        return Path(found)

    def close(self) -> None:
        """Tell the nodes to end, the head last, and kill what does not."""
        for address in reversed(self._nodes):
            self._nodes[address].terminate()
        wait_until(lambda: not self.processes(), seconds=40)
        for address in self._nodes:
            self.kill(address)
            self._nodes[address].wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.2", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def cluster(folder: Path, network: Wires | None = None) -> Iterator[Cluster]:
    folder.mkdir()
    found = Cluster(folder, network)
    try:
        yield found
    finally:
        found.close()
