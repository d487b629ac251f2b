"""Votes to scores: simulated people of known preference, people who guess, and files that cannot be used."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from studies import vote, write_pictures, write_votes

from pipeline.experiments.study import write_study
from pipeline.experiments.study_file import Study, read_study
from pipeline.experiments.votes import VoterRecord, VoteScores, score_votes
from shards.errors import InputError

STRENGTHS = {"SeD": 1.2, "plain": 0.0, "no discriminator": -1.2}
SURE = {arm: 4 * strength for arm, strength in STRENGTHS.items()}
EQUAL = dict.fromkeys(STRENGTHS, 0.0)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "out", *write_pictures(folder / "pictures", list(STRENGTHS), 20))
    return folder / "out" / "study.json"


@pytest.fixture(scope="module")
def study(key: Path) -> Study:
    return read_study(key)


def scores_of(key: Path, folder: Path, *votes: dict[str, Any]) -> VoteScores:
    files = [write_votes(folder / f"votes{number}.json", one) for number, one in enumerate(votes)]
    return score_votes(key, files)


def record(scores: VoteScores, voter: int) -> VoterRecord:
    return next(one for one in scores.voters if one.voter == f"{voter:016x}")


def test_scores_recover_order_and_truth(key: Path, study: Study, tmp_path: Path) -> None:
    scores = scores_of(key, tmp_path, *(vote(study, voter, STRENGTHS) for voter in range(6)))
    assert list(scores.arms) == list(STRENGTHS)
    for arm, strength in STRENGTHS.items():
        assert scores.arms[arm].low <= strength <= scores.arms[arm].high
    assert [(pair.arm, pair.other) for pair in scores.pairs] == [
        ("SeD", "plain"),
        ("SeD", "no discriminator"),
        ("plain", "no discriminator"),
    ]
    assert all(pair.score.is_proven and pair.num_wins > pair.num_losses for pair in scores.pairs)
    assert scores.pairs[1].score.log_odds == pytest.approx(scores.arms["SeD"].log_odds * 2, rel=0.5)
    assert scores.num_images == 20


def test_equal_arms_are_not_proven_different(key: Path, study: Study, tmp_path: Path) -> None:
    scores = scores_of(key, tmp_path, *(vote(study, voter, EQUAL) for voter in range(6)))
    assert not any(pair.score.is_proven for pair in scores.pairs)
    assert "not proven" in scores.text


def test_voter_who_guesses_is_listed_and_counted(key: Path, study: Study, tmp_path: Path) -> None:
    votes = [vote(study, 1, SURE), vote(study, 2, SURE), vote(study, 3, EQUAL)]
    scores = scores_of(key, tmp_path, *votes)
    assert [one.is_at_chance for one in scores.voters] == [False, False, True]
    assert record(scores, 3).num_choices == 72
    line = next(line for line in scores.text.splitlines() if line.startswith(f"{3:016x}"))
    assert f"repeats not told from chance: a coin agrees so often in {record(scores, 3).chance:.0%}" in line
    assert record(scores, 3).chance > 0.05
    assert "chance" not in next(line for line in scores.text.splitlines() if line.startswith(f"{1:016x}"))
    assert sum(pair.num_wins + pair.num_losses for pair in scores.pairs) == 3 * 72


def test_voter_who_prefers_a_side_is_listed(key: Path, study: Study, tmp_path: Path) -> None:
    scores = scores_of(key, tmp_path, vote(study, 1, EQUAL, left_bias=2.0), vote(study, 2, EQUAL, left_bias=-2.0))
    assert "prefers the left side" in record(scores, 1).warnings
    assert "prefers the right side" in record(scores, 2).warnings
    assert not any(record(scores_of(key, tmp_path, vote(study, 5, SURE)), 5).warnings)


def test_few_repeats_tell_nothing(key: Path, study: Study, tmp_path: Path) -> None:
    votes = vote(study, 1, STRENGTHS, num_questions=10)
    assert record(scores_of(key, tmp_path, votes), 1).warnings == ["too few repeats to tell from chance"]


def test_no_difference_is_half_a_choice_and_no_contradiction(key: Path, study: Study, tmp_path: Path) -> None:
    votes = vote(study, 1, STRENGTHS)
    for choice in votes["choices"]:
        choice["chosen"] = "neither"
    scores = scores_of(key, tmp_path, votes)
    assert [score.log_odds for score in scores.arms.values()] == pytest.approx([0, 0, 0])
    assert (record(scores, 1).num_repeats, sum(pair.num_neither for pair in scores.pairs)) == (0, 72)


def test_earlier_export_of_a_voter_is_part_of_the_later_one(key: Path, study: Study, tmp_path: Path) -> None:
    votes = vote(study, 1, STRENGTHS)
    earlier = {**votes, "choices": votes["choices"][:30]}
    expected = scores_of(key, tmp_path, votes)
    assert scores_of(key, tmp_path, earlier, votes) == expected
    assert scores_of(key, tmp_path, votes, votes, earlier) == expected
    other = copy.deepcopy(earlier)
    other["choices"][7]["chosen"] = "neither"
    with pytest.raises(InputError, match=r"votes0.json and .*votes1.json are of voter 0+1 and hold different choices"):
        scores_of(key, tmp_path, votes, other)


def test_order_of_files_changes_nothing(key: Path, study: Study, tmp_path: Path) -> None:
    votes = [vote(study, voter, STRENGTHS) for voter in range(3)]
    assert scores_of(key, tmp_path, *votes) == scores_of(key, tmp_path, *votes[::-1])


def test_text_says_what_one_voter_cannot_tell(key: Path, study: Study, tmp_path: Path) -> None:
    text = scores_of(key, tmp_path, vote(study, 1, STRENGTHS)).text
    assert '"Which picture looks better?": 1 voter(s), 72 choices on 20 image(s)' in text
    assert "one voter: what others would give is not known" in text
    assert "one voter" not in scores_of(key, tmp_path, vote(study, 1, STRENGTHS), vote(study, 2, STRENGTHS)).text


def choice(number: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda votes: votes["choices"][number].update(changes)


def repeated_answer(votes: dict[str, Any]) -> None:
    votes["choices"].append(votes["choices"][2])


def repeat_of_nothing(votes: dict[str, Any]) -> None:
    votes["choices"] = [one for one in votes["choices"] if one["repeat"]]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (choice(3, chosen="both"), r"expected one of 'left', 'right', 'neither', got 'both' @ \$.choices\[3\].chosen"),
        (choice(0, image=20), r"the study has 20 image\(s\); got 20 @ \$.choices\[0\].image"),
        (choice(0, image=-1), r"must be from 0 .*; got -1 @ \$.choices\[0\].image"),
        (choice(5, left="0" * 12), r"no arm of the study; got '000000000000' @ \$.choices\[5\].left"),
        (choice(5, right="SeD"), r"must be 12 lower-case hex digits; got 'SeD' @ \$.choices\[5\].right"),
        (choice(1, seconds="1"), r"expected a finite number, got '1' @ \$.choices\[1\].seconds"),
        (choice(1, name="x"), r"unknown key 'name'.* @ \$.choices\[1\].name"),
        (repeated_answer, r"this question was answered before @ \$.choices\[72\]"),
        (repeat_of_nothing, r"the question that it repeats was not answered before @ \$.choices\[0\].repeat"),
        (lambda votes: votes.update(study="0" * 64), "is of another study: got 000000000000, .*study.json is of"),
        (lambda votes: votes.update(voter="me"), r"must be 16 lower-case hex digits; got 'me' @ \$.voter"),
        (lambda votes: votes.pop("choices"), r"choices"),
        (lambda votes: votes.update(choices=[]), "the votes hold no choice"),
        (lambda votes: votes.update(format="other"), r"expected one of 'sed-trainer votes 1', got 'other' @ \$.format"),
    ],
)
def test_wrong_votes_are_refused_with_their_place(
    key: Path, study: Study, tmp_path: Path, damage: Callable[[dict[str, Any]], None], words: str
) -> None:
    votes = vote(study, 1, STRENGTHS)
    damage(votes)
    with pytest.raises(InputError, match=words) as raised:
        scores_of(key, tmp_path, votes)
    assert "votes0.json" in str(raised.value) or "no choice" in str(raised.value)


def test_same_arm_on_both_sides_is_refused(key: Path, study: Study, tmp_path: Path) -> None:
    votes = vote(study, 1, STRENGTHS)
    votes["choices"][0]["right"] = votes["choices"][0]["left"]
    with pytest.raises(InputError, match=r"both sides show the same arm @ \$.choices\[0\]"):
        scores_of(key, tmp_path, votes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "votes.json is not JSON"),
        (b"\xff\xfe", "votes.json is not JSON"),
        (b'{"choices": NaN}', "NaN is not a number"),
        (b"[" * 100_000, "not JSON of at most"),
        (b"[]", r"expected a table, got \[\]"),
        (b" " * (4 * 2**20 + 1), "votes.json cannot be read: has 4,194,305 bytes, more than"),
    ],
)
def test_files_that_are_no_votes_are_refused(key: Path, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "votes.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        score_votes(key, [path])


def test_missing_files_and_studies_are_refused(key: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json cannot be read: No such file"):
        score_votes(key, [tmp_path / "none.json"])
    damaged = tmp_path / "study.json"
    damaged.write_text(json.dumps({**json.loads(key.read_text()), "arms": {"x": "SeD"}}))
    with pytest.raises(InputError, match=r"study.json: 1 fault.*\n.*12 lower-case hex digits; got 'x'"):
        score_votes(damaged, [])
