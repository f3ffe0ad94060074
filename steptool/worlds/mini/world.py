"""The bundled world: ToolBench in miniature, made from a seed in about a second."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

from steptool.core.errors import WorldError
from steptool.core.types import FINISH, Revision, Task, ToolCall, content_hash
from steptool.worlds.mini.catalog import PROVIDERS
from steptool.worlds.mini.plans import Case
from steptool.worlds.mini.schema import SPLITS, Split
from steptool.worlds.mini.session import MiniSession
from steptool.worlds.mini.store import Store
from steptool.worlds.mini.tasks import write_cases

CODE_VERSION = 1
"""Raised when a change of code changes replies without changing tasks or data."""


class MiniWorld:
    """Tools, data and tasks of one seed. Same seed and sizes: same tasks, same replies, same revision."""

    def __init__(self, seed: int, train_tasks: int, dev_tasks: int, test_tasks: int) -> None:
        sizes: dict[Split, int] = {"train": train_tasks, "dev": dev_tasks, "test": test_tasks}
        self.seed = seed
        self.store = Store(seed)
        self._cases = {split: write_cases(self.store, split, sizes[split], seed) for split in SPLITS}
        self._by_id = {case.task.id: case for cases in self._cases.values() for case in cases}
        self._apis = {provider.full(api): (provider, api) for provider in PROVIDERS.values() for api in provider.apis}
        self.revision = Revision(name="mini", revision=self._content())

    def _content(self) -> str:
        """Hash of everything that decides a reply: the APIs, the listings, the tasks and their hiccups."""
        digest = hashlib.sha256()
        for part in (
            [CODE_VERSION, self.seed, {split: len(cases) for split, cases in self._cases.items()}],
            [provider.model_dump() for provider in PROVIDERS.values()],
            [asdict(listing) for listing in self.store.listings],
            self.store.codes,
            [[case.task.model_dump(), case.hiccup and repr(case.hiccup)] for case in self._by_id.values()],
        ):
            digest.update(content_hash(part, 64).encode())
        return digest.hexdigest()[:16]

    def all_tasks(self, split: str = "test") -> list[Task]:
        """Every task of a split, the subsets in turn, so that any prefix is balanced."""
        return [case.task for case in self.cases(split)]

    def tasks(self, subset: str, split: str = "test") -> list[Task]:
        return [task for task in self.all_tasks(split) if task.subset == subset]

    def cases(self, split: str) -> list[Case]:
        """Tasks with their solutions: for demonstrations and tests, never for a policy."""
        for name in SPLITS:
            if name == split:
                return self._cases[name]
        raise WorldError(f"there is no split {split!r}", where="world mini", fix=f"use {', '.join(SPLITS)}")

    def case(self, task: Task) -> Case:
        case = self._by_id.get(task.id)
        if case is None or case.task != task:
            raise WorldError(
                f"task {task.id} is not one of this world's",
                where=f"world mini, revision {self.revision.revision}",
                fix="make the tasks again from the present params.yaml: dvc repro prepare",
            )
        return case

    def reset(self, task: Task, seed: int) -> MiniSession:
        """A fresh session. `seed` changes nothing: hiccups belong to the task, so every client meets the same."""
        return MiniSession(self.store, self.case(task), self._apis)


def expert_steps(world: MiniWorld, task: Task) -> list[ToolCall]:
    """The flawless solution of a task, recoveries included, ending with Finish."""
    case = world.case(task)
    return [*case.solution(), finish(case.answer)]


def finish(answer: str | None) -> ToolCall:
    """The terminal call; None gives up."""
    return ToolCall(name=FINISH, arguments={"give_up": True} if answer is None else {"answer": answer})
