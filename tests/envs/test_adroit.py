"""The Adroit tasks as environments: spaces, endings, success, masks, seeds, snapshots, cameras, bad input."""

import importlib.util

import numpy as np
import pytest

import envs
from common.errors import ConfigError, DependencyError, NonFiniteError
from envs.adroit import AdroitEnv
from envs.adroit_model import PURPLE
from envs.adroit_tasks import Outcome
from envs.level_names import camera_count
from envs.tasks import find_task, task_names

TASKS = task_names("adroit")
ACTIONS = {"adroit_door": 28, "adroit_hammer": 26, "adroit_pen": 24, "adroit_relocate": 30}
ARM_JOINTS = {"adroit_door": 4, "adroit_hammer": 2, "adroit_pen": 0, "adroit_relocate": 6}
# Each of these draws for seconds where there is no GPU; two tasks with other cameras, sizes and endings do.
DRAWN = [
    "adroit_door",
    "adroit_pen",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("adroit_hammer", "adroit_relocate")),
]
FIRST_JOINT, LAST_JOINT = "WRJ1", "THJ0"


@pytest.fixture(scope="module")
def make():
    """Make environments with cheap shadows, or give one of the same kind again; close them all in the end."""
    opened = {}

    def build(name, copy=0, **options):
        key = (name, copy, *sorted(options.items()))
        if key not in opened:
            fixed = {"fast_render": True, "foreground": True, "image_size": 96, "seed": 1}
            opened[key] = envs.make_env(name, **{**fixed, **options})
        opened[key].episode = 0
        return opened[key]

    yield build
    for env in opened.values():
        env.close()


def random_actions(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def without_pictures(env, monkeypatch):
    """Let ``env`` step without drawing; its infos stay."""
    pixels = np.zeros(env.observation_space["pixels"].shape, np.uint8)
    monkeypatch.setattr(env.renderer, "render", lambda data: pixels)
    return env


def outcomes(env, monkeypatch, *, reward=0.0, goal=False, failed=False):
    """Let every control step come to the given outcome."""
    task = type("Task", (), {"judge": staticmethod(lambda data: Outcome(reward, goal, failed))})()
    for name in ("hand", "goal_steps", "place", "placed"):
        setattr(task, name, getattr(env._task, name))
    monkeypatch.setattr(env, "_task", task)


def test_there_are_four_tasks():
    assert TASKS == tuple(sorted(ACTIONS))


@pytest.mark.parametrize("name", TASKS)
def test_observations_actions_and_cameras(name, make):
    env = make(name)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["pixels"].shape == (96, 96, 3) and observation["state"].shape == (24,)
    assert env.action_space.shape == (ACTIONS[name],)
    assert (info["goal_steps"], info["success"]) == (0, False) and info["foreground"].shape == (96, 96)
    cameras = tuple(env.model.camera(i).name for i in range(env.model.ncam))
    assert cameras == find_task(name).cameras and len(cameras) == camera_count(find_task(name).domain)
    assert env.model.opt.timestep == 0.002
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert isinstance(reward, float) and not terminated and not truncated


@pytest.mark.parametrize("name", TASKS)
def test_state_is_wrist_and_fingers(name, make):
    env = make(name)
    env.reset(seed=0)
    first, last = (int(env.model.joint(j).qposadr[0]) for j in (FIRST_JOINT, LAST_JOINT))
    assert first == ARM_JOINTS[name] and last - first == 23
    for action in random_actions(env, 2):
        state = env.step(action)[0]["state"]
    assert np.array_equal(state, env.data.qpos[first : last + 1].astype(np.float32)) and state.any()


def test_actions_reach_the_actuators_as_the_papers_environments_scale_them(make, monkeypatch):
    env = without_pictures(make("adroit_door"), monkeypatch)
    env.reset(seed=0)
    for value in (-1.0, 0.0, 1.0, 3.0):
        env.step(np.full(28, value, np.float32))
        low, high = env.model.actuator_ctrlrange.T
        assert np.allclose(env.data.ctrl, {-1.0: low, 0.0: (low + high) / 2}.get(value, high))
    gains = {env.model.actuator(i).name: env.model.actuator_gainprm[i, 0] for i in range(env.model.nu)}
    assert gains["A_WRJ0"] == gains["A_WRJ1"] == 10 and gains["A_ARTz"] == 500
    assert {gain for name, gain in gains.items() if name[2:4] in ("FF", "MF", "RF", "LF", "TH")} == {1.0}


@pytest.mark.parametrize(("name", "steps"), [("adroit_door", 100), ("adroit_pen", 50)])
def test_horizon_counts_control_steps(name, steps, make, monkeypatch):
    env = without_pictures(make(name), monkeypatch)
    env.reset(seed=0)
    outcomes(env, monkeypatch)
    flags = [env.step(np.zeros(env.action_space.shape, np.float32))[2:4] for _ in range(steps)]
    assert set(flags[:-1]) == {(False, False)} and flags[-1] == (False, True)
    assert env.data.time == pytest.approx(0.01 * 2 * steps)


def test_action_repeat_sums_rewards_and_counts_every_goal(make, monkeypatch):
    twice, once = make("adroit_pen"), make("adroit_pen", copy=1)
    monkeypatch.setattr(once, "action_repeat", 1)
    for env in (twice, once):
        without_pictures(env, monkeypatch).reset(seed=5)
    for action in random_actions(twice, 4):
        _, reward, *_, info = twice.step(action)
        steps = [once.step(action) for _ in range(2)]
        assert reward == sum(step[1] for step in steps)
        assert info["goal_steps"] == steps[-1][-1]["goal_steps"]
        assert np.array_equal(twice.data.qpos, once.data.qpos)


@pytest.mark.parametrize(("name", "enough"), [("adroit_door", 26), ("adroit_hammer", 26), ("adroit_pen", 21)])
def test_success_needs_more_goal_steps_than_the_threshold(name, enough, make, monkeypatch):
    env = without_pictures(make(name), monkeypatch)
    monkeypatch.setattr(env, "action_repeat", 1)
    env.reset(seed=0)
    outcomes(env, monkeypatch, goal=True)
    for count in range(1, enough + 2):
        info = env.step(np.zeros(env.action_space.shape, np.float32))[-1]
        assert info["goal_steps"] == count and info["success"] == (count >= enough)
    info = env.reset()[1]
    assert info["goal_steps"] == 0 and not info["success"]


def test_a_dropped_pen_ends_the_episode_but_not_at_its_last_step(make, monkeypatch):
    env = without_pictures(make("adroit_pen"), monkeypatch)
    still = np.zeros(24, np.float32)
    env.reset(seed=0)
    env.data.joint("OBJTx").qpos[0] = 0.2  # downwards
    _, _, terminated, truncated, _ = env.step(still)
    assert (terminated, truncated) == (True, False) and env._control_steps == 1
    env.reset(seed=0)
    outcomes(env, monkeypatch)
    for _ in range(49):
        env.step(still)
    monkeypatch.setattr(env, "action_repeat", 1)
    env.step(still)
    outcomes(env, monkeypatch, failed=True)
    assert env.step(still)[2:4] == (False, True), "time was up: the last state keeps its value"


@pytest.mark.parametrize("name", DRAWN)
def test_an_episode_depends_on_its_seed_alone(name, make):
    used, fresh = make(name), make(name, copy=1)
    actions = random_actions(used, 2)
    used.reset(seed=50)
    used.step(actions[0])
    pictures = []
    for env in (used, fresh):
        env.reset(seed=7)
        steps = [env.step(action) for action in actions]
        pictures.append([step[0]["pixels"] for step in steps])
        rewards = [step[1] for step in steps]
    assert np.array_equal(*pictures) and rewards == [step[1] for step in steps]
    assert np.array_equal(used.data.qpos, fresh.data.qpos)
    places = {tuple(start_of(fresh, seed)) for seed in range(5)}
    assert len(places) == 5


def start_of(env, seed):
    env._reset_simulation(seed)
    return np.concatenate(
        [env.model.body_pos.ravel(), env.model.body_quat.ravel(), env.model.site_pos.ravel()]
    )


@pytest.mark.parametrize(
    ("name", "what", "low", "high"),
    [
        ("adroit_door", lambda m: m.body("frame").pos, (-0.3, 0.25, 0.252), (-0.2, 0.35, 0.35)),
        ("adroit_hammer", lambda m: m.body("nail_board").pos[2:], (0.1,), (0.25,)),
        ("adroit_relocate", lambda m: m.body("Object").pos[:2], (-0.15, -0.15), (0.15, 0.3)),
        ("adroit_relocate", lambda m: m.site("target").pos, (-0.2, -0.2, 0.15), (0.2, 0.2, 0.35)),
    ],
)
def test_starts_fill_their_ranges(name, what, low, high, make):
    env = make(name)
    drawn = []
    for seed in range(200):
        env._task.place(env.model, np.random.default_rng(seed))
        drawn.append(np.array(what(env.model)))
    low, high = np.array(low), np.array(high)
    assert (np.min(drawn, 0) >= low).all() and (np.max(drawn, 0) <= high).all()
    assert (np.ptp(drawn, 0) > 0.9 * (high - low)).all()


def test_the_pens_target_is_turned_about_two_axes(make):
    """Turned by y about the second axis, then by x about the first, z is (sin y, -sx cos y, cx cos y)."""
    env = make("adroit_pen")
    for seed in range(20):
        env._reset_simulation(seed)
        x, y = np.random.default_rng(seed).uniform(-1, 1, 2)
        axis = env.data.site("target_top").xpos - env.data.site("target_bottom").xpos
        wanted = 0.13 * np.array([np.sin(y), -np.sin(x) * np.cos(y), np.cos(x) * np.cos(y)])
        assert np.allclose(axis, wanted, atol=1e-9)


@pytest.mark.parametrize("name", DRAWN)
def test_state_restores_the_moment_bit_by_bit(name, make):
    env, other = make(name), make(name, copy=1)
    env.reset()
    env.reset()
    actions = random_actions(env, 6)
    for action in actions[:4]:
        now = env.step(action)
    saved = env.get_state()
    assert saved["episode"] == 1 and saved["actions"].shape == (4, *env.action_space.shape)
    other.set_state(saved)
    observation, info = other.observe()
    assert np.array_equal(observation["pixels"], env.render()) and info.keys() == now[-1].keys()
    assert all(np.array_equal(info[key], now[-1][key]) for key in info)
    assert np.array_equal(observation["state"], now[0]["state"])
    for action in actions[4:]:
        (seen, reward, *flags), (again, same, *others) = env.step(action), other.step(action)
        assert all(np.array_equal(seen[key], again[key]) for key in seen)
        assert reward == same and flags[:2] == others[:2]
        assert flags[2]["goal_steps"] == others[2]["goal_steps"]
    assert np.array_equal(other.data.qpos, env.data.qpos) and np.array_equal(other.data.qvel, env.data.qvel)
    assert other.episode == 1 and np.array_equal(other.reset()[0]["pixels"], env.reset()[0]["pixels"])


LANDMARKS = {  # geoms of each scene that nothing hides when an episode begins, the middle one first
    "adroit_door": lambda m: [int(m.body("latch").geomadr[0]) + 1],
    "adroit_hammer": lambda m: [m.geom("head").id],
    "adroit_pen": lambda m: [m.geom(name).id for name in ("target", "t_top", "t_bot", "t_cli")],
    "adroit_relocate": lambda m: [m.geom("sphere").id],
}


@pytest.mark.parametrize("name", TASKS)
def test_frames_are_upright(name, make):
    """What lies up and to the right of the camera's axis is seen in the picture's upper right."""
    env = make(name)
    for seed in range(2):
        env.reset(seed=seed)
        geoms = LANDMARKS[name](env.model)
        camera = find_task(name).camera
        axes = env.data.cam_xmat[camera].reshape(3, 3)
        x, y, z = axes.T @ (env.data.geom_xpos[geoms[0]] - env.data.cam_xpos[camera])
        scale = 48 / np.tan(np.radians(env.model.cam_fovy[camera]) / 2)
        shown = env.renderer.render_segmentation(env.data)
        rows, columns = np.nonzero(np.isin(shown[..., 0], geoms) & (shown[..., 1] == 5))
        assert len(rows) > 10
        assert columns.mean() == pytest.approx(47.5 + scale * x / -z, abs=3)
        assert rows.mean() == pytest.approx(47.5 - scale * y / -z, abs=3)


FOREGROUND = {
    "adroit_door": {"forearm", "palm", "thdistal", "door", "latch"},
    "adroit_hammer": {"forearm", "palm", "Object", "nail", "nail_board"},
    "adroit_pen": {"forearm", "palm", "Object", "target"},
    "adroit_relocate": {"palm", "Object"},
}
BACKGROUND = {
    "adroit_door": {"world", "table", "frame"},
    "adroit_hammer": {"world", "table"},
    "adroit_pen": {"world", "table"},
    "adroit_relocate": set(),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_mask_is_hand_and_objects(name, make):
    env = make(name)
    _, info = env.reset(seed=3)
    mask = info["foreground"]
    shown = env.renderer.render_segmentation(env.data)
    is_geom, is_site = shown[..., 1] == 5, shown[..., 1] == 6

    def bodies(where):
        geoms = np.unique(shown[where & is_geom][:, 0])
        return {env.model.body(int(env.model.geom_bodyid[geom])).name for geom in geoms}

    assert bodies(mask) >= FOREGROUND[name] and not bodies(mask) & BACKGROUND[name]
    assert bodies(~mask) <= BACKGROUND[name]
    assert mask[is_site].all(), "marks cover the nail and are relocate's target"
    assert is_site.any() == (name in ("adroit_hammer", "adroit_relocate"))
    assert 200 < mask.sum() < 0.5 * mask.size


@pytest.mark.parametrize("name", DRAWN)
def test_recolouring_the_foreground_changes_exactly_the_mask(name, make):
    """Without shadows, reflections and smoothed edges, which carry colours across the mask's border."""
    env = make(name, copy="plain", image_size=84)
    env.model.vis.quality.offsamples = 0
    env.model.light_castshadow[:] = 0
    env.model.mat_reflectance[:] = 0
    plain, info = env.reset(seed=3)
    for chosen, colours in (
        (env.foreground_geoms(), env.model.geom_rgba),
        (env.foreground_sites(), env.model.site_rgba),
    ):
        colours[chosen & (colours[:, 3] > 0)] = (0.0, 0.0, 0.9, 1.0)
    env.model.geom_matid[env.foreground_geoms()] = -1
    env.model.site_matid[env.foreground_sites()] = -1
    changed = (env.observe()[0]["pixels"] != plain["pixels"]).any(-1)
    mask = info["foreground"]
    assert not (changed & ~mask).any() and changed[mask].mean() > 0.99


def test_relocate_is_seen_as_in_the_papers_scene(make):
    env = make("adroit_relocate", camera="cam1")
    observation, info = env.reset(seed=0)
    sky = observation["pixels"][~info["foreground"]]
    assert info["foreground"].sum() > 100, "nothing hides the hand from below"
    assert (abs(sky.astype(int) - np.round(np.array(PURPLE) * 255)) <= 1).all(-1).mean() > 0.9


def test_diverging_physics_is_an_error_that_names_the_step(make, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log where it stands
    env = without_pictures(make("adroit_door"), monkeypatch)
    env.reset(seed=0)
    env.data.qvel[0] = 1e30
    with pytest.raises(NonFiniteError, match=r"diverged in adroit_door, episode \d+, control step 0"):
        env.step(np.zeros(28, np.float32))
    env.reset(seed=0)
    env.step(np.zeros(28, np.float32))


@pytest.mark.parametrize(
    ("options", "words", "cure"),
    [
        ({"task": "adroit_dor"}, "Unknown task 'adroit_dor'", "Did you mean adroit_door?"),
        ({"camera": "tpo"}, "adroit_door has no camera 'tpo'", "Did you mean top?"),
        ({"task": "walker_walk", "camera": "top"}, "walker_walk has no camera 'top'", "cam_id_0"),
        ({"camera": "top", "level": "cam_id_0"}, "another camera than camera=top", "one of them"),
        ({"level": "cam_id_3"}, "'door' does not support the level 'cam_id_3'", "cam_id_2"),
        ({"image_size": -1}, "image_size must be a whole number", "image_size"),
        ({"image_size": 4000}, "4000x4000 does not fit the simulator's buffer", "smaller image_size"),
    ],
)
def test_bad_input_is_one_clear_error(options, words, cure):
    with pytest.raises(ConfigError) as caught:
        envs.make_env(**{"task": "adroit_door", **options}).reset()
    assert words in caught.value.message and cure in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_a_missing_package_names_the_cure(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="adroit_pen is not installed") as caught:
        AdroitEnv(find_task("adroit_pen"))
    assert caught.value.hint == "pip install gymnasium-robotics==1.4.2"
