"""What the first stage leaves: the file that VRL3 reads, its record, and the curve as a picture."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch

from algos.pretraining.loop import EncoderTrainer
from common.files import atomic_path, sha256_file, write_bytes, write_json
from common.versions import made_with

WEIGHTS, PICTURE = "resnet6.safetensors", "accuracy.png"
_PACKAGES = ("torch", "numpy", "pillow", "safetensors")


def export_encoder(trainer: EncoderTrainer, made_by: dict[str, Any]) -> dict[str, Any]:
    """Write weights, record (``resnet6.json``) and picture into the run's folder.

    The weights are ``algos.resnet6``'s for one picture, as ``agent.encoder_weights`` wants them.

    Args:
        trainer: done.
        made_by: command and device.

    Returns:
        The record, with the file's SHA-256.
    """
    path = trainer.folder / WEIGHTS
    features = trainer.network["features"].state_dict()
    state = {name: value.detach().cpu().contiguous() for name, value in features.items()}
    write_bytes(path, safetensors.torch.save(state))
    last = trainer.curve[-1] if trainer.curve else {}
    record = {
        "architecture": "resnet6-32ch",
        "sha256": sha256_file(path),
        **last,
        **trainer.data,
        "made": datetime.now(UTC).date().isoformat(),
        **made_with(_PACKAGES),
        **made_by,
    }
    write_json(path.with_suffix(".json"), record)
    draw_curve(trainer.curve, trainer.folder / PICTURE)
    return record


def draw_curve(curve: list[dict[str, float]], path: Path) -> None:
    """Draw accuracy by epoch, in training and validation, as a PNG."""
    from matplotlib.figure import Figure  # takes a second to import
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in curve]
    names = {"train_accuracy": "training", "val_accuracy": "validation", "val_top5": "validation, best five"}
    for key, name in names.items():
        if curve and key in curve[0]:
            axes.plot(epochs, [100 * row[key] for row in curve], marker=".", label=name)
    axes.set(xlabel="epoch", ylabel="accuracy in %", ylim=(0, 100))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
