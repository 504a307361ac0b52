"""What report.py reads, and what it refuses to put into one table."""

import json

import pytest

from common.errors import ConfigError, InputError
from evaluation.report.grouping import level_key, make_sections
from evaluation.report.loading import method_name, parse_labels, read_inputs
from evaluation.results import save_result
from tests.support.reports import conditions, level_facts, result, write_results, write_run


def write(folder, name, variant="tiny", returns=(1.0, 3.0), **changes):
    path = folder / f"{name}.json"
    save_result(path, result(returns, variant, **changes))
    return path


def sections(folder, split=()):
    return make_sections(read_inputs([folder]).entries, split)


def test_method_names():
    assert method_name(conditions("tiny")) == "drqv2 + tiny"
    assert method_name(conditions("tiny", training="none")) == "drqv2 + tiny (trained with none)"
    assert method_name(conditions("tiny", training_masker=None, algorithm="svea")) == "svea + tiny"


def test_files_folders_and_run_directories(tmp_path):
    files = write_results(tmp_path / "runs", tasks=["walker_walk"], seeds=[1, 2], maskers=["tiny"])
    write_run(tmp_path / "runs" / "walker_walk-tiny-1", "walker_walk", "tiny", 1)
    (tmp_path / "runs" / "walker_walk-tiny-1" / "masker").mkdir()
    (tmp_path / "runs" / "walker_walk-tiny-1" / "masker" / "masker.json").write_text("{}")  # no result
    found = read_inputs([tmp_path / "runs", files[0]])  # named twice, read once
    assert sorted(entry.path for entry in found.entries) == sorted(files)
    (run,) = found.runs
    assert (run.method, run.task, run.seed, run.action_repeat) == ("drqv2 + tiny", "walker_walk", 1, 2)
    assert len(run.points["eval"]) == 21 and run.points["train"] == []
    (picture,) = found.pictures
    assert picture.caption == "walker_walk, drqv2 + tiny, training seed 1, train+video_hard-tiny"


def test_hidden_files_and_earlier_reports_are_passed_over(tmp_path):
    write(tmp_path, "a")
    (tmp_path / ".stage.json").write_text("{}")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "report.json").write_text("{}")
    (tmp_path / "old" / "other.json").write_text("{}")
    assert len(read_inputs([tmp_path]).entries) == 1


def test_a_table_cut_off_by_a_crash(tmp_path):
    write_run(tmp_path, "walker_walk", "tiny", 1)
    (tmp_path / "eval.csv").write_text("agent_steps,episode_return\n10,1.5\n20,\n30,2.5\n40,9")
    assert read_inputs([tmp_path]).runs[0].points["eval"] == [(10, 1.5), (30, 2.5)]


def test_labels_name_what_lies_below(tmp_path):
    write(tmp_path / "a", "x")
    write(tmp_path / "a" / "b", "y", level="color_hard")
    labels = parse_labels([f"outer={tmp_path / 'a'}", f"inner={tmp_path / 'a' / 'b'}"])
    found = read_inputs([], labels)
    assert {entry.method for entry in found.entries} == {"outer", "inner"}


@pytest.mark.parametrize("text", ["tiny", "=runs", "tiny=", " =runs"])
def test_impossible_labels(text):
    with pytest.raises(ConfigError, match="not NAME=PATH"):
        parse_labels([text])


def test_all_bad_files_are_named_at_once(tmp_path):
    good = write(tmp_path, "good")
    old = {**json.loads(good.read_text()), "version": 3}
    (tmp_path / "old.json").write_text(json.dumps(old))
    (tmp_path / "half.json").write_text('{"version": 4, ')
    (tmp_path / "foreign.json").write_text('{"name": "else"}')
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("task_name: walker_walk\n")
    with pytest.raises(InputError) as caught:
        read_inputs([tmp_path])
    text = caught.value.message
    assert text.startswith("4 of 5 inputs cannot be used")
    assert "version is 3, expected" in text and "half.json is not valid JSON" in text
    assert "foreign.json" in text and "config.yaml is no configuration of a run" in text
    assert "good.json" not in text and "locoeval.py --overwrite" in caught.value.hint


def test_nothing_and_nowhere(tmp_path):
    with pytest.raises(InputError, match="No results in"):
        read_inputs([tmp_path])
    with pytest.raises(InputError, match=r"a, .*b: no such file"):
        read_inputs([tmp_path / "a", tmp_path / "b"])


OTHER_MASKER = {**conditions("tiny").masker, "fingerprint": "ff" * 32, "method": {"passes": 1}}
CONFLICTS = {
    "protocol": ({"protocol": "samg"}, "another protocol in one table: protocol dmcgb in"),
    "source": ({"source": "procedural"}, "another level source in one table: levels dmcgb in"),
    "data": (
        {"level_facts": {**level_facts("video_hard"), "clips": 7}},
        "another data of a level in one table (walker_walk, video_hard): clips 10 in",
    ),
    "fingerprint": (
        {"masker": OTHER_MASKER},
        "another masker in one method (walker_walk, drqv2 + tiny): passes 3",
    ),
    "budget": (
        {"agent_steps": 250_000, "frames": 500_000},
        "another training budget in one method (walker_walk, drqv2 + tiny): decisions 500,000 in",
    ),
    "agent": ({"agent": {"class": "DrQV2Agent", "bn_eval": "batch"}}, "another agent in one method"),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_what_does_not_belong_together_is_refused_and_the_hint_cures_it(tmp_path, name):
    change, message = CONFLICTS[name]
    write(tmp_path, "a", level="video_hard")
    write(tmp_path, "b", level="video_hard", **{"train_seed": 2, **change})
    with pytest.raises(ConfigError) as caught:
        sections(tmp_path)
    text, hint = caught.value.message, caught.value.hint
    assert message in text and str(tmp_path / "a.json") in text and str(tmp_path / "b.json") in text
    assert f"--split {name} " in hint and "--label NAME=PATH" in hint
    made = sections(tmp_path, [name])
    separate = {(s.title, e.method, e.level) for s in made for e in s.entries}
    assert len(separate) == 2 and sum(len(section.entries) for section in made) == 2
    if name in ("protocol", "source"):
        assert len({section.title for section in made}) == 2
    else:
        assert len(made) == 1


def test_several_conflicts_are_named_at_once(tmp_path):
    write(tmp_path, "a", level="video_hard")
    write(tmp_path, "b", level="video_hard", protocol="samg", agent_steps=1000, train_seed=2)
    with pytest.raises(ConfigError) as caught:
        sections(tmp_path)
    assert "--split protocol budget " in caught.value.hint and len(caught.value.message.splitlines()) == 3


def test_names_that_split_gives(tmp_path):
    for passes in (1, 3):
        masker = {**OTHER_MASKER, "fingerprint": f"{passes}" * 64, "method": {"passes": passes, "radius": 4}}
        save_result(tmp_path / f"{passes}.json", result((1.0,), masker=masker))
    (section,) = sections(tmp_path, ["fingerprint"])
    assert [entry.method for entry in section.entries] == [f"drqv2 + tiny [passes {n}]" for n in (1, 3)]


def test_names_where_only_fingerprints_differ(tmp_path):
    for digit in "ab":
        masker = {**conditions("tiny").masker, "fingerprint": digit * 64}
        save_result(tmp_path / f"{digit}.json", result((1.0,), masker=masker))
    (section,) = sections(tmp_path, ["fingerprint"])
    names = [entry.method for entry in section.entries]
    assert names == [f"drqv2 + tiny [fingerprint {digit * 8}…]" for digit in "ab"]


def test_what_may_stand_together(tmp_path):
    # Tasks have their own references and budgets; the training scene draws from no source; seeds differ.
    write(tmp_path, "a", task="walker_walk")
    write(tmp_path, "b", task="cheetah_run", agent_steps=1_500_000)
    write(tmp_path, "c", task="walker_walk", level="video_hard", source="procedural")
    write(tmp_path, "d", task="walker_walk", train_seed=2)
    write(tmp_path, "e", task="walker_walk", seed=5)
    write(tmp_path, "f", "none", agent={"class": "DrQV2Agent"}, agent_steps=10)
    overlays = [{"name": "textures", "sha256": str(s), "earlier_sha256": [str(s)] * s} for s in (1, 2)]
    agents = [{"class": "PIEGAgent", "encoder_seed": s, "overlay_source": overlays[s - 1]} for s in (1, 2)]
    for seed, agent in enumerate(agents):
        write(tmp_path, f"g{seed}", "tiny", algorithm="pieg", agent=agent, train_seed=seed)
    (section,) = sections(tmp_path)
    assert section.title == "" and len(section.entries) == 8


@pytest.mark.parametrize("fact", [{"encoder_sha256": "b"}, {"overlay_source": {"name": "photos"}}])
def test_agents_that_learned_from_other_files_are_other_agents(tmp_path, fact):
    common = {"class": "PIEGAgent", "encoder_sha256": "a", "overlay_source": {"name": "textures"}}
    write(tmp_path, "a", algorithm="pieg", agent=common)
    write(tmp_path, "b", algorithm="pieg", agent=common | fact, train_seed=2)
    with pytest.raises(ConfigError, match="agent"):
        sections(tmp_path)


def test_the_training_scene_stands_in_the_tables_of_all_sources(tmp_path):
    write(tmp_path, "train")
    write(tmp_path, "d", level="video_hard")
    write(tmp_path, "p", level="video_hard", source="procedural")
    write(tmp_path, "other", "none", level="train", source="procedural")  # of a run that has no other level
    made = {s.title: sorted(e.path.stem for e in s.entries) for s in sections(tmp_path, ["source"])}
    assert made["level source dmcgb"] == ["d", "train"] and made["level source procedural"] == ["p", "train"]


def test_an_evaluation_counts_once(tmp_path):
    write(tmp_path / "one", "a")
    write(tmp_path / "two", "a")
    with pytest.raises(ConfigError, match="hold the same evaluation: walker_walk, train, drqv2") as caught:
        sections(tmp_path)
    assert "one/a.json" in caught.value.message and "two/a.json" in caught.value.message


def test_unknown_split():
    with pytest.raises(ConfigError, match="Unknown value of --split 'protocl'") as caught:
        make_sections([], ["protocl"])
    assert "Did you mean protocol?" in caught.value.hint


def test_order_of_levels():
    levels = ["video_hard+cam_pos_easy", "video_hard", "cam_pos_easy", "train", "color_easy"]
    assert sorted(levels, key=level_key) == ["train", "color_easy", "video_hard", "cam_pos_easy", levels[0]]
