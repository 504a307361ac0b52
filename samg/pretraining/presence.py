"""After training: the similarity below which an object is not in the picture."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from common.seeding import derive_seed
from samg.pretraining.composites import Banks, Compositor
from samg.pretraining.losses import prototypes
from samg.tiny import TinyNetworks
from samg.tiny_modules import SIZE, unit_vectors

_MISSED = 0.005  # share of visible objects that the threshold may call absent, in training pictures
_SMALLEST = 20  # pixels of an object that count as visible; fewer than 1 counts as absent


@torch.no_grad()
def calibrate_presence(
    networks: TinyNetworks, banks: Banks, seed: int, batches: int = 40, composites: int = 16
) -> dict[str, float]:
    """Measure on fresh training pictures how alike the best pixel of an object that is there is.

    Args:
        networks: trained; they are left in evaluation mode.
        banks: what pictures are made of.
        seed: of the pictures, which training has not seen.
        batches: of pictures.
        composites: pictures per batch.

    Returns:
        For every choice of encoders (names joined by ``+`` in alphabetical order) the cosine below which
        one in 200 visible objects falls.
    """
    networks.eval()
    compositor = Compositor(banks, composites)
    choices = [c for r in (1, 2) for c in itertools.combinations(sorted(networks.encoders), r)]
    found: dict[str, list[Tensor]] = {"+".join(choice): [] for choice in choices}
    for number in range(batches):
        generator = Generator(banks.backgrounds.device).manual_seed(derive_seed(seed, "presence", number))
        batch = compositor.batch(generator)
        domains = len(banks.frames.slots)
        maps = networks.encode(batch.frames).maps
        count = len(batch.reference_masks)
        owners = torch.arange(domains, device=batch.classes.device)
        similarity = {}
        for name, features in maps.items():
            targets = prototypes(features[:count].float(), owners, batch.reference_masks[:domains, 0])
            cosine = torch.einsum("pd,kdhw->kphw", targets, unit_vectors(features[count:]))
            similarity[name] = F.interpolate(cosine, size=(SIZE, SIZE), mode="bilinear")
        numbers = torch.arange(1, domains + 1, device=batch.classes.device).view(1, -1, 1, 1)
        visible = (batch.classes.unsqueeze(1) == numbers).flatten(2).sum(-1) >= _SMALLEST
        for choice in choices:
            mean = torch.stack([similarity[name] for name in choice]).mean(0)
            found["+".join(choice)].append(mean.flatten(2).amax(-1)[visible])
    return {name: round(float(torch.cat(peaks).quantile(_MISSED)), 4) for name, peaks in found.items()}
