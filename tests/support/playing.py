"""The beginning of an episode, played under fixed actions."""

import numpy as np


def play(env, episode, steps=3):
    """Return frames, uint8 (steps + 1, H, W, 3), and masks, bool (steps + 1, H, W)."""
    env.episode = episode
    observation, info = env.reset()
    frames, masks = [observation["pixels"]], [info["foreground"]]
    for t in range(steps):
        observation, _, _, _, info = env.step(np.full(env.action_space.shape, 0.3 * (t + 1), np.float32))
        assert env.observation_space.contains(observation)
        frames.append(observation["pixels"])
        masks.append(info["foreground"])
    return np.stack(frames), np.stack(masks)
