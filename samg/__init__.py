"""SAM-G's masker: one annotated reference image in, masks of every new frame out (Wang et al., 2023).

``build_masker(variant).fit(Reference.load(image, mask)).mask(frames)`` is all an agent needs.
"""

from samg.artefact import load_masker
from samg.build import VARIANTS, build_masker
from samg.masker import Explanation, SamGMasker
from samg.options import SamgOptions
from samg.reference import Reference
from samg.sharing import fit_once
from samg.views import ViewMasker, ViewReferences, load_reference

__all__ = [
    "VARIANTS",
    "Explanation",
    "Reference",
    "SamGMasker",
    "SamgOptions",
    "ViewMasker",
    "ViewReferences",
    "build_masker",
    "fit_once",
    "load_masker",
    "load_reference",
]
