"""The published data behind the levels, where they are at hand: every colour and every clip loads."""

import os

import numpy as np
import pytest

from envs.colors import AgentColorScene, ColorScene
from envs.data import DATA_VARIABLE, find_clips
from envs.levels import build_scene
from envs.video_background import SMALLEST_SIDE, VideoFiles, decode

SHARED = os.environ.get(DATA_VARIABLE)
pytestmark = pytest.mark.skipif(not SHARED, reason=f"{DATA_VARIABLE} names no folder with DMC-GB's data")


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_all_hundred_colours_become_palettes(difficulty):
    scene = build_scene(f"color_{difficulty}", "walker", data_dir=SHARED)
    assert isinstance(scene, ColorScene) and len(set(scene.entries)) == 100
    agents = build_scene(f"objects_color_{difficulty}", "walker", data_dir=SHARED)
    assert isinstance(agents, AgentColorScene)
    assert agents.colors == tuple(entry.self_rgb for entry in scene.entries)


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_no_published_clip_is_refused(difficulty, tmp_path):
    clips = find_clips(difficulty, SHARED)
    bank = VideoFiles(clips, 84, tmp_path)  # without a cache every file is opened
    assert len(bank) == len(clips) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_every_published_clip_decodes_and_moves(difficulty):
    for path in find_clips(difficulty, SHARED):
        clip = decode(path, SMALLEST_SIDE)
        assert clip.shape[1:] == (SMALLEST_SIDE, SMALLEST_SIDE, 3) and len(clip) >= 400, path.name
        assert np.abs(np.diff(clip[::25].astype(np.int16), axis=0)).max() > 0, path.name
