"""A judge behind an OpenAI-compatible endpoint: the questions of arXiv 2410.07745, in our own words.

    annotate: {use: judge, url: 'https://api.openai.com/v1', model: gpt-x, key: OPENAI_API_KEY, votes: 3}

    success         of every step but the last: its calls worked, 0 or 1               means over `votes` answers
    contribution    of these: how far it brought the task forward, 0 to 5 of 5
    verdict         of the last: 1 solved, 1/2 unsure, 0 unsolved; 0 by rule without an answer
    relative        of the last, with `relative: true`: its place among the attempts at the task (`judge_relative`)
    solved          of the last: the session's outcome; where that is unknown, the verdict
    builds, grounded                                                                   as annotator `rules` has them

An answer that cannot be used is asked for once more. Where that fails in every vote the scores are None: never 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import ClassVar, Literal

from steptool.annotators.judge_answers import Vote, read_vote
from steptool.annotators.judge_asking import DECIDE, Answer, Asking, JudgeSettings
from steptool.annotators.judge_prompt import JUDGE, has_answer, judge_question, judge_schema, steps_of
from steptool.annotators.judge_relative import Relative, preferred
from steptool.annotators.rules import Rules
from steptool.core.types import Judgement, Reference, Task, Trajectory

KEPT = ("builds", "grounded")
"""Scores of `rules` that stand beside those of the judge: facts of the transcript, which reward forms read."""


class Judge:
    name: ClassVar[str] = "judge"
    deciding: ClassVar[tuple[str, ...]] = (*DECIDE, "relative", "solved", "unusable")

    class Config(JudgeSettings):
        relative: bool = False
        """Whether the attempts at a task are also judged side by side."""
        solved: Literal["verdict", "relative"] = "verdict"
        """What `solved` is where the world cannot tell; relative is for rounds that are trained on, where attempts at a
        task are compared with each other, and no pass rate."""
        unusable: Literal["none", "rules"] = "none"
        """What success and contribution are where no vote could be used; `validate` refuses attempts without them."""

    def __init__(self, config: Config) -> None:
        """Raises WorldError where the environment lacks the key, DataError or StorageError for the store."""
        self.config = config
        self._asking = Asking(config)
        self._rules = Rules(Rules.Config())
        wants = config.relative or config.solved == "relative"
        self._relative = Relative(self._asking) if wants else None

    async def annotate(self, trajectory: Trajectory, task: Task, reference: Reference) -> Sequence[Judgement]:
        """Raises what `rules` and `Asking.ask` raise."""
        facts = await self._rules.annotate(trajectory, task, reference)
        if not facts:
            return facts
        answers = await self._votes(trajectory, task, reference)
        votes = [each.value for each in answers if each.value is not None]
        cost = sum(each.cost for each in answers)
        relative = None
        if self._relative is not None:
            relative, more = await self._relative.score(trajectory, task, reference)
            cost += more
        problem = next((each.problem for each in answers if each.value is None), "")
        scores, reasons = self._scores(trajectory, votes, relative, problem, facts)
        return [
            Judgement(
                scores={**own, **{name: fact.scores[name] for name in KEPT if name in fact.scores}},
                reason=reason,
                votes=max(len(votes), 1),
                cost=cost / len(facts),
            )
            for own, reason, fact in zip(scores, reasons, facts, strict=True)
        ]

    def look_ahead(self, trajectories: Sequence[Trajectory]) -> None:
        """The attempts at a task are compared with each other."""
        if self._relative is not None:
            self._relative.look_ahead(trajectories)

    async def prefers(
        self, one: Trajectory, other: Trajectory, task: Task, reference: Reference
    ) -> tuple[float | None, bool]:
        """As `judge_relative.preferred` says."""
        return await preferred(self._asking, one, other, task, reference)

    def counts(self) -> Mapping[str, float]:
        """How many questions were asked, and what became of those that were not answered well at once."""
        return {name: float(count) for name, count in vars(self._asking.counts).items()}

    def end(self) -> None:
        """May be called twice."""
        self._asking.close()

    async def _votes(self, trajectory: Trajectory, task: Task, reference: Reference) -> list[Answer[Vote]]:
        steps = steps_of(trajectory)
        if not steps and not has_answer(trajectory):
            return []
        question = judge_question(trajectory, task, reference, self.config.max_observation)
        schema = judge_schema(trajectory)

        def read(text: str) -> Vote:
            return read_vote(text, steps, has_answer(trajectory))

        asked = (self._asking.ask(JUDGE, question, schema, read, vote=vote) for vote in range(self.config.votes))
        return await asyncio.gather(*asked)

    def _scores(
        self,
        trajectory: Trajectory,
        votes: Sequence[Vote],
        relative: float | None,
        problem: str,
        facts: Sequence[Judgement],
    ) -> tuple[list[dict[str, float | None]], list[str]]:
        """Scores and reason of each step."""
        scores: list[dict[str, float | None]] = []
        reasons: list[str] = []
        lost = f"no usable answer of the judge: {problem}"
        for step, fact in enumerate(facts[:-1]):
            if trajectory.steps[step].action.unreadable is not None:
                scores.append({"success": 0.0, "contribution": 0.0})
                reasons.append(fact.reason)
                continue
            own = [vote.steps[step] for vote in votes]
            success, contribution = _mean([one.success for one in own]), _mean([one.contribution for one in own])
            by_rules = not own and self.config.unusable == "rules"
            if by_rules:
                success, contribution = fact.success, fact.contribution
            scores.append({"success": success, "contribution": contribution})
            reasons.append(own[0].reason if own else f"{lost}; by rules: {fact.reason}" if by_rules else lost)
        verdict = _mean([vote.verdict for vote in votes if vote.verdict is not None])
        reasons.append(votes[0].reason if votes and has_answer(trajectory) else lost)
        if not has_answer(trajectory):
            verdict = None if trajectory.stop_reason.broken else 0.0
            reasons[-1] = f"no answer: {trajectory.stop_reason.value}"
        known = trajectory.outcome.solved
        judged = relative if self.config.solved == "relative" and relative is not None else verdict
        last = {"solved": judged if known is None else known, "verdict": verdict}
        scores.append(last | ({"relative": relative} if self._relative is not None else {}))
        return scores, reasons


def _mean(found: Sequence[float]) -> float | None:
    return fmean(found) if found else None
