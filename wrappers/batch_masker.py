"""Frames in, masked frames out, for whoever steps environments: batches, transfers, and masks used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.masking import ObservationMasker, apply_mask
from wrappers.mask_faults import MaskWatch, check_mask


class MaskMemory:
    """How far an environment's episode has come, and its last mask: for maskers that mask every k-th frame.

    An episode begins with a new one. The views of several cameras are masked, and kept, at the same moments.
    """

    def __init__(self) -> None:
        self._frames = 0
        self._last: dict[str, np.ndarray] = {}

    def due(self, every: int) -> bool:
        """Return whether the next frame is to be masked, the first and every k-th after it; count it."""
        self._frames += 1
        return (self._frames - 1) % every == 0

    def keep(self, found: Mapping[str, np.ndarray], row: int) -> None:
        """Keep a row of what a masker found."""
        self._last = {name: values[row].copy() for name, values in found.items()}

    @property
    def last(self) -> dict[str, np.ndarray]:
        """What was kept last."""
        return self._last

    def state_dict(self) -> dict[str, Any]:
        """Return everything as numbers and arrays; ``restored`` reads it again."""
        return {"frames": self._frames, "last": dict(self._last)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> MaskMemory:
        """Return what ``state_dict`` described."""
        memory = cls()
        memory._frames, memory._last = int(state["frames"]), dict(state["last"])
        return memory


class BatchMasker:
    """Masks batches of frames and says what the info gains; both wrappers use it, and so may any loop.

    A batch travels to the masker's device once, and what was found comes back in one copy. Observations of V
    cameras, (N, V, H, W, 3), become N * V frames of one batch, in which the views of a moment are neighbours;
    what is found has the axes (N, V) in place of (N,).

    Args:
        masker: makes the masks.
        keep_raw: keep the unmasked frames as ``raw_pixels``.
        batch_size: pads every call of the masker to that many frames (of several cameras: that many
            observations of V views each); None for calls as they come.
        device: where the frames go; None for where the masker is (the CPU, if it does not say).
        keep_points: keep where the masker found the reference's points, its ``last_points``, as
            ``mask_points``, float32 (N, P, 2), (x, y); nothing where a masker has no such attribute.
        keep_failed: folder for frames on which the masker fails; None: the system's temporary folder.

    Raises:
        MaskerError: when called and the masker raises, or returns what is no mask; it names the frame.

    Attributes:
        every: of how many frames of an episode one is masked, as the masker says.
    """

    def __init__(
        self,
        masker: ObservationMasker,
        keep_raw: bool = False,
        batch_size: int | None = None,
        device: torch.device | str | None = None,
        keep_points: bool = False,
        keep_failed: Path | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self._masker, self._keep_raw, self._keep_points = masker, keep_raw, keep_points
        self._batch_size = batch_size
        self._device = torch.device(device if device is not None else getattr(masker, "device", "cpu"))
        self.every = int(getattr(masker, "every", 1))
        self._watch = MaskWatch(masker.info, keep_failed)

    def __call__(
        self,
        frames: np.ndarray,
        foreground: np.ndarray | None,
        memories: Sequence[MaskMemory] | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Mask uint8 (N, [V,] H, W, 3); return the masked frames and what the info gains.

        Args:
            frames: uint8 (N, H, W, 3), or (N, V, H, W, 3) of several cameras.
            foreground: bool (N, [V,] H, W) or None.
            memories: of the environments that the frames come from, in order; needed where ``every`` > 1.

        Raises:
            ValueError: ``every`` > 1, and there is not one memory per frame.
        """
        if self.every == 1:
            found = self._find(frames, foreground)
        else:
            found = self._find_due(frames, foreground, memories)
        mask = found["mask"]
        masked = apply_mask(torch.from_numpy(np.ascontiguousarray(frames)), torch.from_numpy(mask)).numpy()
        found["mask"] = mask if mask.dtype == np.bool_ else mask >= 0.5
        if self._keep_raw:
            found["raw_pixels"] = frames
        return masked, found

    def _find_due(
        self, frames: np.ndarray, foreground: np.ndarray | None, memories: Sequence[MaskMemory] | None
    ) -> dict[str, np.ndarray]:
        """Mask the frames whose turn it is; the others get their environment's last mask."""
        if memories is None or len(memories) != len(frames):
            number = 0 if memories is None else len(memories)
            raise ValueError(f"memories: expected {len(frames)}, one per frame, got {number}")
        due = np.array([memory.due(self.every) for memory in memories], dtype=bool)
        if due.any() or not len(frames):
            found = self._find(frames[due], None if foreground is None else foreground[due])
            for row, index in enumerate(np.flatnonzero(due)):
                memories[int(index)].keep(found, row)
        if not len(frames):
            return found
        return {name: np.stack([memory.last[name] for memory in memories]) for name in memories[0].last}

    def _find(self, frames: np.ndarray, foreground: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return ``mask``, bool or float (N, [V,] H, W), ``mask_empty``, and ``mask_points`` where known."""
        size = self._batch_size or max(len(frames), 1)
        parts = [
            self._watch(self._mask_batch, frames[rows], None if foreground is None else foreground[rows])
            for rows in (slice(start, start + size) for start in range(0, max(len(frames), 1), size))
        ]
        return (
            parts[0]
            if len(parts) == 1
            else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        )

    def _mask_batch(self, frames: np.ndarray, foreground: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return what the masker finds in one padded batch, without the padding."""
        batch = self._to_device(frames)
        exact = None if foreground is None else self._to_device(foreground)
        with torch.inference_mode():
            found = {"mask": self._masker.mask(_as_frames(batch, 3), foreground=_as_frames(exact, 2))}
            empty = getattr(self._masker, "last_empty", None)
            points = getattr(self._masker, "last_points", None) if self._keep_points else None
            found |= {} if empty is None else {"mask_empty": empty}
            found |= {} if points is None else {"mask_points": points}
            if batch.ndim == 5:
                found = {name: values.unflatten(0, batch.shape[:2]) for name, values in found.items()}
            host = to_host({name: values[: len(frames)] for name, values in found.items()})
        check_mask(host["mask"], frames.shape[:-1])
        if empty is None:
            host["mask_empty"] = np.asarray(~(host["mask"] >= 0.5).any(axis=(-2, -1)))
        return host

    def _to_device(self, rows: np.ndarray) -> Tensor:
        missing = (self._batch_size or len(rows)) - len(rows)
        if missing:
            rows = np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
        return torch.from_numpy(np.ascontiguousarray(rows)).to(self._device)


def _as_frames(batch: Any, dims: int) -> Any:
    """Join the views of several cameras with the batch; a tensor of which a picture has ``dims`` axes."""
    return batch if batch is None or batch.ndim == dims + 1 else batch.flatten(0, 1)


def to_host(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Copy tensors of one device to the host in a single transfer: each of them would wait for the device.

    Args:
        values: name -> tensor of any shape and type.
    """
    # The widest types first, so that every part begins at a multiple of its elements' size.
    ordered = sorted(values.items(), key=lambda item: -item[1].element_size())
    joined = torch.cat([value.contiguous().flatten().view(torch.uint8) for _, value in ordered]).cpu()
    sizes = [value.numel() * value.element_size() for _, value in ordered]
    parts = zip(ordered, joined.split(sizes), strict=True)
    return {name: part.view(like.dtype).view(like.shape).numpy() for (name, like), part in parts}
