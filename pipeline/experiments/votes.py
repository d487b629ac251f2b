"""Votes of a study with people: scores of the arms, and how far each voter can be trusted.

All choices count, repeats too. A voter whose repeats contradict each other as often as a coin would is listed, and
counts as well: chance on both sides only draws scores together, and who is excluded should be decided before votes
are read. Choices of other studies, of unknown arms, or given twice are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.experiments.bradley_terry import Choices, Fit, fit
from pipeline.experiments.study_file import Ballot, Choice, Study, read_ballot, read_study
from pipeline.metrics.bootstrap import CONFIDENCE
from shards.errors import InputError, shown
from shards.schema import KeyPath, listed

CHANCE = 0.05
"""A voter is not told from chance whose repeats would agree as often with this probability or more if guessed."""
BIAS = 0.01
"""A voter prefers a side whose choices would be as uneven with less than this probability without such a preference."""
_MIN_REPEATS = 5
"""Of fewer, even perfect agreement is not told from chance: four agree by chance in one case of 16."""


@dataclass(frozen=True)
class Score:
    """How much an arm is preferred to another, or to an average arm.

    Attributes:
        log_odds: Of being preferred.
        low: Lower end of the interval at `CONFIDENCE`, over voters and images.
        high: Upper end.
    """

    log_odds: float
    low: float
    high: float

    @property
    def is_proven(self) -> bool:
        """Whether the preference, for one or the other, is proven."""
        return self.low > 0 or self.high < 0

    @property
    def text(self) -> str:
        """The probability of being preferred, with its interval."""
        preferred, low, high = ((1 + math.tanh(value / 2)) / 2 for value in (self.log_odds, self.low, self.high))
        return f"{preferred:.0%} ({low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class PairScore:
    """One arm against another.

    Attributes:
        arm: The one with the higher score.
        other: The other.
        num_wins: Choices of `arm` where both were shown.
        num_losses: Choices of `other`.
        num_neither: No difference seen.
        score: Of `arm` against `other`, from all choices, those of third arms too.
    """

    arm: str
    other: str
    num_wins: int
    num_losses: int
    num_neither: int
    score: Score


@dataclass(frozen=True)
class VoterRecord:
    """What the choices of one voter tell about the voter.

    Attributes:
        voter: The number that the browser drew.
        num_choices: Repeats included.
        num_repeats: Questions that were answered twice with a preference.
        num_agreeing: Of these, with the same preference.
        num_left: Choices of the left side.
        num_right: Choices of the right side.
        num_originals: Questions where the original was looked at.
    """

    voter: str
    num_choices: int
    num_repeats: int
    num_agreeing: int
    num_left: int
    num_right: int
    num_originals: int

    @property
    def chance(self) -> float:
        """How probably the repeats of a voter who guesses agree so often or more."""
        return _at_least(self.num_agreeing, self.num_repeats)

    @property
    def is_at_chance(self) -> bool:
        """Whether the repeats could be those of a voter who guesses; where arms look alike, everybody's can."""
        return self.chance >= CHANCE

    @property
    def is_biased(self) -> bool:
        """Whether one side was chosen too often for results that were placed at random."""
        more, both = max(self.num_left, self.num_right), self.num_left + self.num_right
        return 2 * _at_least(more, both) < BIAS

    @property
    def warnings(self) -> list[str]:
        """What to know before this voter's choices are trusted."""
        found = []
        if self.num_repeats < _MIN_REPEATS:
            found.append("too few repeats to tell from chance")
        elif self.is_at_chance:
            found.append(f"repeats not told from chance: a coin agrees so often in {self.chance:.0%}")
        if self.is_biased:
            found.append(f"prefers the {'left' if self.num_left > self.num_right else 'right'} side")
        return found


@dataclass(frozen=True)
class VoteScores:
    """The result of a study.

    Attributes:
        study: Which one.
        question: That was asked.
        arms: Score of each arm against an average one, the highest first.
        pairs: Each two arms, in the order of `arms`.
        voters: In the order of their numbers.
        num_images: That were voted on.
    """

    study: str
    question: str
    arms: dict[str, Score]
    pairs: tuple[PairScore, ...]
    voters: tuple[VoterRecord, ...]
    num_images: int

    @property
    def text(self) -> str:
        """The result as tables."""
        num_choices = sum(voter.num_choices for voter in self.voters)
        counts = f"{len(self.voters)} voter(s), {num_choices} choices on {self.num_images} image(s)"
        blocks = [[f'"{self.question}": {counts}'], self._arms_table(), self._pairs_table(), self._voters_table()]
        return "\n\n".join("\n".join(block) for block in blocks)

    def _arms_table(self) -> list[str]:
        rows = [
            (arm, f"{score.log_odds:+.2f} ({score.low:+.2f} to {score.high:+.2f})", score.text)
            for arm, score in self.arms.items()
        ]
        legend = f"intervals at {CONFIDENCE:.0%}, over voters and images"
        unknown = [f"{source}: what others would give is not known" for source in self._single_sources()]
        return [*_aligned([("arm", "score", "preferred to an average arm"), *rows]), "; ".join([legend, *unknown])]

    def _single_sources(self) -> Iterator[str]:
        if len(self.voters) == 1:
            yield "one voter"
        if self.num_images == 1:
            yield "one image"

    def _pairs_table(self) -> list[str]:
        rows = [
            (
                f"{pair.arm} : {pair.other}",
                f"{pair.num_wins} : {pair.num_losses}",
                str(pair.num_neither),
                pair.score.text,
                "preferred" if pair.score.is_proven else "not proven",
            )
            for pair in self.pairs
        ]
        return _aligned([("arms", "chosen", "neither", "first preferred", ""), *rows])

    def _voters_table(self) -> list[str]:
        rows = [
            (
                one.voter,
                str(one.num_choices),
                f"{one.num_agreeing} of {one.num_repeats}",
                f"{one.num_left} : {one.num_right}",
                str(one.num_originals),
                "; ".join(one.warnings),
            )
            for one in self.voters
        ]
        return _aligned([("voter", "choices", "repeats agree", "left : right", "saw original", ""), *rows])


def score_votes(study_file: Path, votes: Sequence[Path]) -> VoteScores:
    """Return the scores of a study's arms from exported votes.

    Args:
        study_file: `study.json`, which was written beside the page.
        votes: Exported files, one or more a voter; an earlier export of a voter is contained in a later one.

    Raises:
        InputError: A file cannot be read, is of another study, names what the study has not, or contradicts another.
    """
    study = read_study(study_file)
    ballots = list(_one_a_voter([(path, _checked(path, study, study_file)) for path in votes]).values())
    if not any(ballot.choices for ballot in ballots):
        raise InputError(
            f"the votes hold no choice; got {len(votes)} file(s); answer some questions and save them again"
        )
    identifiers = list(study.arms)
    fitted = fit(_choices(ballots, identifiers), len(identifiers))
    ranked = sorted(range(len(identifiers)), key=lambda arm: -fitted.scores[arm])
    average = np.full(len(identifiers), 1 / len(identifiers))
    units = np.eye(len(identifiers))
    return VoteScores(
        study.study,
        study.question,
        {study.arms[identifiers[arm]]: _score(fitted, units[arm] - average) for arm in ranked},
        tuple(
            _pair(ballots, study, (identifiers[one], identifiers[other]), _score(fitted, units[one] - units[other]))
            for at, one in enumerate(ranked)
            for other in ranked[at + 1 :]
        ),
        tuple(_record(ballot) for ballot in ballots),
        len({choice.image for ballot in ballots for choice in ballot.choices}),
    )


def _checked(path: Path, study: Study, study_file: Path) -> Ballot:
    """Read votes, and check that they can be of this study."""
    ballot = read_ballot(path)
    if ballot.study != study.study:
        raise InputError(
            f"{path} is of another study: got {ballot.study[:12]}, {study_file} is of {study.study[:12]}; "
            "give the study.json that was written with the page of these votes"
        )
    if faults := list(_faults(ballot, study)):
        raise InputError(listed(faults, str(path)))
    return ballot


def _faults(ballot: Ballot, study: Study) -> Iterator[tuple[KeyPath, str]]:
    answered: set[tuple[object, ...]] = set()
    for number, choice in enumerate(ballot.choices):
        place: KeyPath = ("choices", number)
        if choice.image >= len(study.images):
            yield (*place, "image"), f"the study has {len(study.images)} image(s); got {choice.image}"
        for side, arm in (("left", choice.left), ("right", choice.right)):
            if arm not in study.arms:
                yield (*place, side), f"no arm of the study; got {shown(arm)}"
        if choice.left == choice.right:
            yield place, "both sides show the same arm"
        if (question := (*_question(choice), choice.repeat)) in answered:
            yield place, "this question was answered before"
        if choice.repeat and (*_question(choice), False) not in answered:
            yield (*place, "repeat"), "the question that it repeats was not answered before"
        answered.add(question)


def _question(choice: Choice) -> tuple[int, str, str]:
    return choice.image, min(choice.left, choice.right), max(choice.left, choice.right)


def _one_a_voter(ballots: Sequence[tuple[Path, Ballot]]) -> dict[str, Ballot]:
    """Return the longest export of each voter, by voter."""
    found: dict[str, tuple[Path, Ballot]] = {}
    for path, ballot in ballots:
        earlier_path, earlier = found.get(ballot.voter, (path, ballot))
        shorter, longer = sorted((earlier.choices, ballot.choices), key=len)
        if longer[: len(shorter)] != shorter:
            raise InputError(
                f"{earlier_path} and {path} are of voter {ballot.voter} and hold different choices; "
                "give the one that is meant"
            )
        if len(ballot.choices) >= len(earlier.choices):
            found[ballot.voter] = (path, ballot)
    return {voter: found[voter][1] for voter in sorted(found)}


def _preferred(choice: Choice) -> str | None:
    return {"left": choice.left, "right": choice.right, "neither": None}[choice.chosen]


def _choices(ballots: Sequence[Ballot], identifiers: Sequence[str]) -> Choices:
    rows = [
        (
            identifiers.index(choice.left),
            identifiers.index(choice.right),
            {"left": 1.0, "right": 0.0, "neither": 0.5}[choice.chosen],
            voter,
            choice.image,
        )
        for voter, ballot in enumerate(ballots)
        for choice in ballot.choices
    ]
    first, second, outcome, voters, images = (np.array(column) for column in zip(*rows, strict=True))
    return Choices(first, second, outcome, voters, images)


def _score(fitted: Fit, contrast: np.ndarray) -> Score:
    return Score(*fitted.interval(contrast, CONFIDENCE))


def _pair(ballots: Sequence[Ballot], study: Study, arms: tuple[str, str], score: Score) -> PairScore:
    shown_both = [choice for one in ballots for choice in one.choices if {choice.left, choice.right} == set(arms)]
    preferred = [_preferred(choice) for choice in shown_both]
    counts = (preferred.count(arms[0]), preferred.count(arms[1]), preferred.count(None))
    return PairScore(study.arms[arms[0]], study.arms[arms[1]], *counts, score)


def _record(ballot: Ballot) -> VoterRecord:
    first = {_question(choice): _preferred(choice) for choice in ballot.choices if not choice.repeat}
    twice = [(first[_question(choice)], _preferred(choice)) for choice in ballot.choices if choice.repeat]
    preferred = [answers for answers in twice if None not in answers]
    sides = [choice.chosen for choice in ballot.choices]
    return VoterRecord(
        ballot.voter,
        len(ballot.choices),
        len(preferred),
        sum(one == other for one, other in preferred),
        sides.count("left"),
        sides.count("right"),
        sum(choice.original_shown for choice in ballot.choices),
    )


def _at_least(successes: int, trials: int) -> float:
    """Return how probable so many heads or more are of fair coins."""
    return sum(math.comb(trials, count) for count in range(successes, trials + 1)) / 2**trials


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows of a table, columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
