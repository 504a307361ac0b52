"""What happens when a masker fails on a frame, or finds nothing in many of them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from common.devices import DEVICE_ERRORS
from common.errors import MaskerError, SamgError
from common.masking import MaskerInfo
from common.views import side_by_side

logger = logging.getLogger(__name__)

Found = dict[str, np.ndarray]
MaskBatch = Callable[[np.ndarray, np.ndarray | None], Found]
EMPTY_SHARE = 0.2
WINDOW = 500  # frames over which that share is taken: one episode of most tasks


def check_mask(mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse what is no mask of the frames: it would be stretched over them or become arbitrary bytes.

    Args:
        mask: what a masker found.
        shape: (N, H, W) of the frames, or (N, V, H, W).

    Raises:
        ValueError: another shape, or a soft mask that leaves [0, 1] or is NaN.
    """
    if mask.shape != shape:
        raise ValueError(f"mask: expected the shape of the frames, {shape}, got {mask.shape}")
    if mask.dtype != np.bool_ and not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError("mask: expected values in [0, 1], got others or NaN")


class MaskWatch:
    """Counts what a masker was given, and says which frame it failed on.

    Args:
        info: of the masker.
        keep_failed: folder for the frames it fails on; None: the system's temporary folder.

    Attributes:
        frames: how many frames the masker was given.
        empty: in how many of them it found nothing.
    """

    def __init__(self, info: MaskerInfo, keep_failed: Path | None) -> None:
        self._info, self._keep_failed = info, keep_failed
        self.frames = self.empty = 0
        self._window, self._warned = [0, 0], False

    def __call__(self, mask_batch: MaskBatch, frames: np.ndarray, foreground: np.ndarray | None) -> Found:
        """Return ``mask_batch(frames, foreground)``, counted.

        Args:
            mask_batch: returns at least ``mask_empty``, bool (N,) or (N, V).
            frames: uint8 (N, H, W, 3), or (N, V, H, W, 3) of V cameras.
            foreground: bool (N, [V,] H, W) or None.

        Raises:
            MaskerError: it raised something of its own; what a user can cure anyway, memory that is
                exhausted and devices that fail pass through.
        """
        try:
            found = mask_batch(frames, foreground)
        except (SamgError, MemoryError, *DEVICE_ERRORS):
            raise
        except Exception as error:
            raise self._failure(mask_batch, frames, foreground, error) from error
        self._count(found["mask_empty"])
        return found

    def _count(self, empty: np.ndarray) -> None:
        number, nothing = empty.size, int(empty.sum())
        self.frames, self.empty = self.frames + number, self.empty + nothing
        self._window = [self._window[0] + number, self._window[1] + nothing]
        if self._window[0] < WINDOW:
            return
        share, self._window = self._window[1] / self._window[0], [0, 0]
        if share > EMPTY_SHARE and not self._warned:
            self._warned = True
            logger.warning(
                "The masker %s found nothing in %.0f %% of the last frames: is the reference of this task "
                "and scene? (visualize.py shows its masks; masker.on_empty chooses what stands in)",
                self._info.variant,
                100 * share,
            )

    def _failure(
        self, mask_batch: MaskBatch, frames: np.ndarray, foreground: np.ndarray | None, error: Exception
    ) -> MaskerError:
        """Find the frames that fail alone, keep them as files, and return the error that names them."""
        rows = [row for row in range(len(frames)) if self._fails_alone(mask_batch, frames, foreground, row)]
        rows = rows or list(range(len(frames)))
        numbers = [self.frames + row * (frames.shape[1] if frames.ndim == 5 else 1) for row in rows]
        named = f"frame {numbers[0]}" if len(numbers) == 1 else f"frames {numbers[0]} to {numbers[-1]}"
        reason = " ".join(str(error).split())[:300]
        return MaskerError(
            f"The masker {self._info.name} ({self._info.variant}) failed on {named} of this process "
            f"({type(error).__name__}: {reason}).",
            f"{self._save(frames[rows], numbers)} A traceback: SAMG_DEBUG=1.",
        )

    def _fails_alone(
        self, mask_batch: MaskBatch, frames: np.ndarray, foreground: np.ndarray | None, row: int
    ) -> bool:
        one = slice(row, row + 1)
        try:
            mask_batch(frames[one], None if foreground is None else foreground[one])
        except Exception:
            return True
        return False

    def _save(self, frames: np.ndarray, numbers: list[int]) -> str:
        folder = self._keep_failed or Path(tempfile.gettempdir())
        paths = [folder / f"masker_failed_on_frame_{number}.png" for number in numbers]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, frame in zip(paths, frames, strict=True):
                Image.fromarray(frame if frame.ndim < 4 else side_by_side(frame)).save(path)
        except (OSError, ValueError, TypeError) as error:
            return f"It could not be saved in {folder} ({error})."
        return f"Look at {paths[0]}{' and those beside it' if len(paths) > 1 else ''}."
