"""Snapshots: directories that appear by one rename, with a digest of every file, loaded without pickle.

``snapshots/step_<10 digits>/`` holds one ``<part>.safetensors`` per part of the state, ``state.json`` (the
structure of all parts and their plain values) and ``manifest.json``, written last: digests, versions and what
others may want to know without loading anything.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import platform
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from common import faults
from common.errors import ResourceError, SnapshotError
from common.files import STAGE_PREFIX, atomic_directory, sweep_stages
from training.flatten import flatten, restore

log = logging.getLogger(__name__)
FORMAT = 1
AGENT_PART = "agent"
_LIBRARIES = ("torchvision", "timm", "numpy", "gymnasium", "mujoco", "dm_control", "safetensors")


def library_versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on, and the number of threads, which orders sums."""
    versions = {"python": platform.python_version(), "torch threads": str(torch.get_num_threads())}
    versions["torch"] = torch.__version__  # names the build, which the metadata do not
    return versions | _installed()


@functools.cache
def _installed() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def warn_of_other_versions(manifest: dict[str, Any]) -> None:
    """Say which versions differ from those that wrote a snapshot: the run goes on, but not bit by bit."""
    now = library_versions()
    changed = [
        f"{name} {before} -> {now[name]}"
        for name, before in manifest.get("versions", {}).items()
        if name in now and now[name] != before
    ]
    if changed:
        log.warning(
            "The snapshot was written with other versions (%s): the run goes on, but its numbers may differ "
            "from those of an uninterrupted one.",
            ", ".join(changed),
        )


def _body_digest(manifest: dict[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class SnapshotStore:
    """The snapshots of one run.

    Args:
        directory: the run's ``snapshots`` folder; need not exist.
        keep: how many of the newest are kept.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self.directory = directory
        self.keep = keep

    def paths(self) -> list[Path]:
        """Return the snapshots that are there, oldest first; none is verified."""
        return sorted(path for path in self.directory.glob("step_*") if "." not in path.name)

    def save(self, agent_steps: int, parts: dict[str, Any], info: dict[str, Any]) -> Path:
        """Write a snapshot and remove the oldest beyond ``keep``.

        Args:
            agent_steps: decisions made; names the directory.
            parts: nested state by part; the part ``agent`` holds the networks.
            info: JSON values for the manifest.

        Returns:
            the directory; one that exists already and is intact is left as it is.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        sweep_stages(self.directory)
        path = self.directory / f"step_{agent_steps:010d}"
        if path.exists():
            if self.problem(path) is None:
                return path
            self._set_aside(path, "damaged")
        with atomic_directory(path, kind="snapshot") as stage:
            files, structure = {}, {}
            for name, state in parts.items():
                tensors: dict[str, torch.Tensor] = {}
                structure[name] = flatten(state, tensors)
                # Written by us, not by safetensors, so that a full disk is an OSError that says so.
                files[f"{name}.safetensors"] = safetensors.torch.save(tensors)
            files["state.json"] = json.dumps(structure, allow_nan=False).encode()
            for file, data in files.items():
                (stage / file).write_bytes(data)
                faults.point("snapshot.file")
            manifest = {
                **info,
                "format": FORMAT,
                "agent_steps": agent_steps,
                "versions": library_versions(),
                "files": {
                    file: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    for file, data in files.items()
                },
            }
            manifest["sha256"] = _body_digest(manifest)
            (stage / "manifest.json").write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
            if problem := self.problem(stage):
                raise ResourceError(f"{path} was not written as it should be: {problem}", "Check the disk.")
        for old in self.paths()[: -self.keep]:
            doomed = old.with_name(f"{STAGE_PREFIX}{old.name}")
            faults.point("snapshot.prune")
            old.rename(doomed)  # so that a half-deleted snapshot never looks like one
            shutil.rmtree(doomed)
            faults.point("snapshot.pruned")
        return path

    def latest_valid(self, set_aside: bool = True) -> Path | None:
        """Return the newest snapshot whose files are intact; None if there never was one.

        A damaged one is reported, renamed ``<name>.bad-<n>`` (unless ``set_aside`` is false, for those who
        only read a run), and the one before it is tried.

        Raises:
            SnapshotError: there are snapshots, but none is intact.
        """
        found = self.paths()
        for path in reversed(found):
            problem = self.problem(path)
            if problem is None:
                return path
            if set_aside:
                self._set_aside(path, problem)
            else:
                log.warning("Snapshot %s cannot be used (%s).", path, problem)
        if found or any(self.directory.glob("step_*.bad-*")):
            raise SnapshotError(
                f"No snapshot in {self.directory} is intact.",
                "Start again in another run directory; the damaged ones are kept as *.bad-*.",
            )
        return None

    def named_episodes(self) -> set[str]:
        """Return the replay files that the kept snapshots name; a damaged one names none."""
        names: set[str] = set()
        for path in self.paths():
            with contextlib.suppress(SnapshotError):
                names.update(read_manifest(path).get("replay", []))
        return names

    def _set_aside(self, path: Path, problem: str) -> None:
        count = len(list(self.directory.glob(f"{path.name}.bad-*")))
        aside = path.with_name(f"{path.name}.bad-{count + 1}")
        path.rename(aside)
        log.warning("Snapshot %s cannot be used (%s); it is now %s.", path, problem, aside.name)

    def problem(self, path: Path) -> str | None:
        """Return what is wrong with a snapshot, or None."""
        try:
            manifest = read_manifest(path)
            for name in manifest["files"]:
                _read_verified(path, name, manifest)
        except SnapshotError as error:
            return error.message
        return None


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of the snapshot at ``path``.

    Raises:
        SnapshotError: it is missing, altered, or of a format this version does not know.
    """
    hint = "Use an earlier snapshot of the run."
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{path.name}/manifest.json cannot be read: {error}.", hint) from error
    if not isinstance(manifest, dict) or manifest.get("sha256") != _body_digest(manifest):
        raise SnapshotError(f"{path.name}/manifest.json was altered.", hint)
    if manifest.get("format") != FORMAT:
        raise SnapshotError(
            f"{path.name} has format {manifest.get('format')}, expected {FORMAT}.", "Use a matching version."
        )
    return manifest


def _read_verified(path: Path, name: str, manifest: dict[str, Any]) -> bytes:
    hint = "Use an earlier snapshot of the run."
    try:
        data = (path / name).read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path.name}/{name} cannot be read: {error.strerror}.", hint) from error
    expected, found = manifest["files"][name]["sha256"], hashlib.sha256(data).hexdigest()
    if found != expected:
        short = f"sha256 differs (expected {expected[:12]}..., got {found[:12]}...)"
        raise SnapshotError(f"{path.name}/{name} is damaged: {short}.", hint)
    return data


def load_snapshot(path: Path, parts: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the state of the given parts (all by default) of the snapshot at ``path``, on the CPU.

    Raises:
        SnapshotError: a file is missing or damaged, or a part is not there.
    """
    manifest = read_manifest(path)
    structure = json.loads(_read_verified(path, "state.json", manifest))
    wanted = list(structure if parts is None else parts)
    state = {}
    for part in wanted:
        if part not in structure:
            raise SnapshotError(f"{path.name} has no part '{part}'.", "Use a snapshot of this version.")
        try:
            tensors = safetensors.torch.load(_read_verified(path, f"{part}.safetensors", manifest))
        except SafetensorError as error:
            raise SnapshotError(f"{path.name}/{part}.safetensors: {error}.", "Use an earlier one.") from error
        state[part] = restore(structure[part], tensors)
    return state


def load_agent(run_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (networks for ``agent.load_networks``, manifest) of the newest intact snapshot of a run.

    Raises:
        SnapshotError: the run directory has none.
    """
    path = SnapshotStore(run_dir / "snapshots").latest_valid(set_aside=False)
    if path is None:
        raise SnapshotError(
            f"{run_dir} holds no snapshot.", "Train first: one is written at the end at the latest."
        )
    return load_snapshot(path, [AGENT_PART])[AGENT_PART], read_manifest(path)
