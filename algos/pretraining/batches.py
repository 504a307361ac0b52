"""Batches of pictures for the encoder: read, cut and mirrored in threads, the same whatever their number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from algos.image_files import UNREADABLE, open_image, random_part
from algos.pretraining.images import Pictures
from common.errors import InputError
from common.seeding import counter_rng

VAL_MARGIN = 100 / 84  # validation: the shorter side becomes so much more than the crop from its middle
_AHEAD = 3  # batches that are read before they are asked for
_Item = tuple[int, int]  # place in the pictures, number of the draw


class ImageBatch(NamedTuple):
    """Pictures and their classes.

    Attributes:
        images: uint8 (B, 3, S, S) RGB.
        labels: int64 (B,).
    """

    images: Tensor
    labels: Tensor


class Batches:
    """Reads batches; to be entered, because it has threads.

    The order of an epoch and every crop are pure functions of the seed and the place, so that training can go
    on in the middle of an epoch.

    Args:
        size: S, pixels of a side.
        batch_size: pictures in a batch; the last of an epoch may be smaller.
        seed: of orders and crops.
        workers: threads.
    """

    def __init__(self, size: int, batch_size: int, seed: int, workers: int) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self._pool = ThreadPoolExecutor(workers, "image")

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def count(self, pictures: Pictures) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(pictures) // self.batch_size)

    def training(self, pictures: Pictures, epoch: int, first: int = 0) -> Iterator[ImageBatch]:
        """Yield an epoch from its batch ``first`` on: every picture once, a random part, half mirrored.

        Source: VRL3, stage 1 (random resized crops of 8 % of the picture or more, as usual for ImageNet).
        """
        order = counter_rng(self.seed, "encoder/order", epoch).permutation(len(pictures)).tolist()
        items = [(place, epoch * len(pictures) + place) for place in order]
        return self._read(pictures, items[first * self.batch_size :], self._random)

    def validation(self, pictures: Pictures) -> Iterator[ImageBatch]:
        """Yield every picture's middle, in order."""
        return self._read(pictures, [(place, 0) for place in range(len(pictures))], self._middle)

    def _read(
        self, pictures: Pictures, items: Sequence[_Item], cut: Callable[[Image.Image, int], Image.Image]
    ) -> Iterator[ImageBatch]:
        def read(item: _Item) -> np.ndarray:
            path = pictures.paths[item[0]]
            try:
                image = open_image(path, 3 * self.size, 3 * self.size)
            except UNREADABLE as error:
                raise InputError(f"The image {path} can no longer be read.", "Restore it.") from error
            return np.asarray(cut(image, item[1]))

        starts = iter(range(0, len(items), self.batch_size))
        waiting: deque[tuple[list[Future[np.ndarray]], Tensor]] = deque()
        while True:
            while len(waiting) < _AHEAD and (start := next(starts, None)) is not None:
                chosen = items[start : start + self.batch_size]
                labels = torch.tensor([pictures.labels[place] for place, _ in chosen])
                waiting.append(([self._pool.submit(read, item) for item in chosen], labels))
            if not waiting:
                return
            futures, labels = waiting.popleft()
            stacked = np.stack([future.result() for future in futures])
            yield ImageBatch(torch.from_numpy(stacked).permute(0, 3, 1, 2), labels)

    def _random(self, image: Image.Image, draw: int) -> Image.Image:
        rng = counter_rng(self.seed, "encoder/crops", draw)
        part = random_part(image, self.size, self.size, rng)
        return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part

    def _middle(self, image: Image.Image, draw: int) -> Image.Image:
        scale = round(self.size * VAL_MARGIN) / min(image.size)
        width, height = (max(self.size, round(side * scale)) for side in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        whole = image.resize((width, height), Image.Resampling.BILINEAR)
        return whole.crop((left, top, left + self.size, top + self.size))
