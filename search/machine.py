"""What a job was carried out with: software and device, kept with each trial under a short hash.

Owns the hash and where its meaning is kept; how a change is told is the business of `machinewording`. A study goes on
after an upgrade or on another GPU, where equal seeds need not give equal runs, and whoever reads it must see that.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from search.folder import environment
from search.study import Storage

MACHINE = "machine"
"""The attribute of a trial that holds the hash."""

_KNOWN_AS = "machine:"
"""Begins the attributes of the study that say what a hash means; one each, as several may be noted at once."""

UNKNOWN = "unknown"
_HASH_LENGTH, _COMMIT_LENGTH = 8, 10


@dataclass(frozen=True)
class Machine:
    """Software and device of a machine, but not its name: two that are equal give equal runs.

    Attributes:
        python: Python's version.
        filter_search: Ours.
        commit: The commit of our code; None where it runs from no checkout.
        device: The GPU's name, else the processor's.
        packages: Versions of what results depend on.
    """

    python: str
    filter_search: str
    commit: str | None
    device: str
    packages: Mapping[str, str]

    @classmethod
    def here(cls, device: str) -> Self:
        """The machine at hand.

        Args:
            device: As `search.training.device_name` has it.
        """
        return cls.of(environment([], 0, 1, device))

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Self:
        """The machine that `search.folder.environment` described."""
        hardware = written["hardware"]
        device = hardware["processor"] if hardware["device"] == "cpu" else hardware["device"]
        return cls(written["python"], written["filter_search"], written["commit"], device, written["packages"])

    @classmethod
    def known(cls, values: Any) -> Self:  # noqa: ANN401 # whatever a study file holds
        """The machine that plain values describe; what they lack is unknown."""
        values = values if isinstance(values, dict) else {}
        python, ours, device = (str(values.get(name, UNKNOWN)) for name in ("python", "filter_search", "device"))
        commit, packages = values.get("commit"), values.get("packages")
        versions = (
            {str(name): str(version) for name, version in packages.items()} if isinstance(packages, dict) else {}
        )
        return cls(python, ours, None if commit is None else str(commit), device, versions)

    def digest(self) -> str:
        """Short hash: equal for equal machines."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:_HASH_LENGTH]

    def facts(self) -> dict[str, str]:
        """What there is to tell, by what people call it."""
        facts = {"device": self.device, "Python": self.python, **self.packages, "filter-search": self.filter_search}
        if self.commit is not None:
            facts["commit"] = self.commit[:_COMMIT_LENGTH] + "+" * self.commit.endswith("+")
        return facts


def differences(before: Machine, after: Machine) -> list[str]:
    """What changed from one machine to another, in words: `torch 2.14.0, then 2.15.0`."""
    old, new = before.facts(), after.facts()
    return [f"{name} {old.get(name, UNKNOWN)}, then {new.get(name, UNKNOWN)}" for name in changed(old, new)]


def note(storage: Storage, machine: Machine) -> str:
    """Keep what a machine is, unless the study knows it; its digest, for every trial that is carried out on it."""
    digest = machine.digest()
    if _KNOWN_AS + digest not in storage.search.user_attrs:
        storage.search.set_user_attr(_KNOWN_AS + digest, asdict(machine))
    return digest


def machines(storage: Storage) -> dict[str, Machine]:
    """The machines a study knows, by their digests."""
    attrs = storage.search.user_attrs
    return {
        name.removeprefix(_KNOWN_AS): Machine.known(values)
        for name, values in attrs.items()
        if name.startswith(_KNOWN_AS)
    }


def noted(storage: Storage) -> dict[str, Any]:
    """The machines a study knows as environment.json has them; nothing where it knows none."""
    found = {digest: asdict(machine) for digest, machine in machines(storage).items()}
    return {"machines": found} if found else {}


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The names of the facts in which two machines differ."""
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]
