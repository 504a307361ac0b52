"""Where a run begins: at its newest intact snapshot, if that belongs to the same experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import ConfigError, SnapshotError
from common.masking import MaskerInfo
from training.factory import check_same_agent
from training.snapshot import SnapshotStore, read_manifest, warn_of_other_versions


def find_snapshot(
    run_dir: Path,
    resume: str,
    agent_record: dict[str, Any],
    masker_info: MaskerInfo,
    num_envs: int,
    store: SnapshotStore,
) -> Path | None:
    """Return the snapshot to begin from, or None to begin anew.

    Args:
        run_dir: the run.
        resume: ``auto``, ``must`` or ``never``.
        agent_record: of the agent at hand; see ``training.factory``.
        masker_info: of the masker at hand.
        num_envs: environments at hand.
        store: the run's snapshots.

    Raises:
        ConfigError: the run was made with another agent, masker or number of environments, or is there
            although ``resume`` is ``never``.
        SnapshotError: no snapshot is intact, or there is none although there must be.
    """
    if resume == "never":
        if store.paths() or (run_dir / "train.csv").exists():
            raise ConfigError(
                f"{run_dir} holds a run already and resume=never.",
                "Choose another hydra.run.dir, or resume=auto to continue it.",
            )
        return None
    path = store.latest_valid()
    if path is None:
        if resume == "must":
            raise SnapshotError(f"{run_dir} holds no snapshot and resume=must.", "Use resume=auto.")
        return None
    saved = read_manifest(path)
    check_same_agent(saved.get("agent"), agent_record)
    if saved["num_envs"] != num_envs:
        raise ConfigError(
            f"The run was made with num_envs={saved['num_envs']}, not {num_envs}.",
            f"Set num_envs={saved['num_envs']}.",
        )
    if saved["masker"]["fingerprint"] != masker_info.fingerprint:
        raise ConfigError(
            f"The run was masked by {saved['masker']['variant']} with another fingerprint.",
            "Continue with the masker saved in the run directory, or choose another hydra.run.dir.",
        )
    warn_of_other_versions(saved)
    return path
