"""Machines on one machine: each has an address, a host name, processes and some folders of its own.

Linux namespaces, so root only. The network lies in a namespace too, and the processes that hold all of them
end with the one that started them: nothing is left on the machine, whatever happens.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

_SUBNET = "10.77.0"
_ADD_BRIDGE = ("sh", "-c", "ip link add bridge type bridge && ip link set bridge up")

Popen = subprocess.Popen[str]


def why_not() -> str | None:
    """Why there can be no such machines here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    tried = subprocess.run(["unshare", "--net", *_ADD_BRIDGE], capture_output=True, text=True, check=False)
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else None


@dataclass
class Namespace:
    """Processes in namespaces of their own, held by one that sleeps: with it all of them are killed."""

    holder: subprocess.Popen[str]
    init: int  # the process that the others of the namespace belong to

    @classmethod
    def create(cls, kinds: Sequence[str], setup: str) -> Namespace:
        """A namespace of these kinds in which the shell commands `setup` have run."""
        unshare = [
            "unshare",
            *(f"--{kind}" for kind in kinds),
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        holder = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                *unshare,
                "sh",
                "-ec",
                f"{setup}\necho ready\nexec sleep infinity",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n", setup
        (init,) = psutil.Process(holder.pid).children()
        return cls(holder, init.pid)

    def enter(self, command: Sequence[str], folder: Path) -> list[str]:
        """The command that runs `command` in here."""
        kinds = ("--net", "--uts", "--mount", "--pid")
        return ["nsenter", f"--target={self.init}", *kinds, f"--wdns={folder}", "--", *command]

    def run(self, command: str) -> None:
        """A short shell command."""
        subprocess.run(self.enter(shlex.split(command), Path("/")), check=True)

    def kill(self) -> None:
        """SIGKILL to all processes in it, at the same time."""
        self.holder.kill()
        self.holder.wait()
        assert self.holder.stdout is not None
        self.holder.stdout.close()


@dataclass
class Machine:
    """A machine of the network."""

    name: str
    address: str
    namespace: Namespace
    folder: Path  # what is its own, as others see it
    shared: Path  # the folder that all machines see
    _port: str  # its end of the cable at the bridge
    _network: Network
    _started: list[Popen] = field(default_factory=list)

    def start(self, command: Sequence[str], environment: Mapping[str, str], output: IO[str]) -> Popen:
        """Start a command on it, in the shared folder; it ends with the machine at the latest."""
        process = subprocess.Popen(
            self.namespace.enter(command, self.shared),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def kill(self) -> None:
        """As if its power was cut."""
        self.namespace.kill()
        for process in self._started:
            process.wait()

    def cut_off(self) -> None:
        """Take its cable out: its processes go on, and nobody hears of them."""
        self._network.switch.run(f"ip link set {self._port} down")

    def lose_packets_to(self, other: Machine) -> None:
        """All that is sent to another machine gets lost on the way, as behind a firewall that drops it."""
        nobody = "02:00:00:00:00:99"
        self.namespace.run(f"ip neigh replace {other.address} lladdr {nobody} dev cable nud permanent")

    def lose_no_packets_to(self, other: Machine) -> None:
        """The other machine is reached again."""
        self.namespace.run(f"ip neigh del {other.address} dev cable")

    def connect(self) -> None:
        """Put its cable in again."""
        self._network.switch.run(f"ip link set {self._port} up")


@dataclass
class Network:
    """Machines joined by a bridge; all are killed at the end of the block."""

    folder: Path  # seen by all machines
    machines: list[Machine] = field(default_factory=list)

    def __enter__(self) -> Network:
        self._ends = ExitStack()
        self.switch = Namespace.create(["net", "uts", "mount"], shlex.join(_ADD_BRIDGE))
        self._ends.callback(self.switch.kill)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def add(self, own: Sequence[str]) -> Machine:
        """A further machine.

        Args:
            own: folders below the shared one that it has for itself, under the same path.
        """
        number = len(self.machines) + 1
        name, address = f"machine-{number}", f"{_SUBNET}.{number}"
        mine = self.folder / ".own" / name
        mounts = "\n".join(_own_folder(mine / below, self.folder / below) for below in own)
        hosts = mine / "hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text(f"127.0.0.1 localhost\n{address} {name}\n")
        setup = f"{mounts}\nmount --bind {hosts} /etc/hosts\necho {name} >/proc/sys/kernel/hostname"
        namespace = Namespace.create(["net", "uts", "mount"], setup)
        self._ends.callback(namespace.kill)
        port = self._plug_in(namespace, number, address)
        machine = Machine(name, address, namespace, mine, self.folder, port, self)
        self._ends.callback(machine.kill)
        self.machines.append(machine)
        return machine

    def _plug_in(self, namespace: Namespace, number: int, address: str) -> str:
        """Lay a cable from the bridge to a machine; returns the name of its end at the bridge."""
        port = f"port{number}"
        # With the switch's network, but the processes as they are numbered here.
        lay = ["nsenter", f"--target={self.switch.init}", "--net", "ip", "link", "add", port, "type", "veth"]
        subprocess.run([*lay, "peer", "name", "cable", "netns", str(namespace.init)], check=True)
        self.switch.run(f"ip link set {port} master bridge up")
        namespace.run("ip link set lo up")
        namespace.run(f"ip address add {address}/24 dev cable")
        namespace.run("ip link set cable up")
        return port


def _own_folder(source: Path, target: Path) -> str:
    source.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    return f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(target))}"
