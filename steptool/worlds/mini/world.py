"""The bundled world: ToolBench in miniature, made from a seed in about a second."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from steptool.core.fields import Positive, Settings
from steptool.core.types import Reference, Task, Trajectory
from steptool.worlds.base import SPLITS, Split
from steptool.worlds.lookup import case_of, of_split
from steptool.worlds.mini.catalog import PROVIDERS
from steptool.worlds.mini.demonstrations import expert_demonstrations
from steptool.worlds.mini.long.session import LongSession
from steptool.worlds.mini.long.tasks import write_long_cases
from steptool.worlds.mini.long.trails import FEWEST_CALLS, MOST_CALLS, Trail
from steptool.worlds.mini.plans import Case
from steptool.worlds.mini.session import CaseSession, MiniSession
from steptool.worlds.mini.store import Store
from steptool.worlds.mini.tasks import MAX_CALLS, write_cases


class MiniWorld:
    """Tools, data and tasks of one seed. Same seed and sizes: same tasks, same replies.

    Raises InputError where more tasks are asked for than it can tell apart.
    """

    name: ClassVar[str] = "mini"

    class Config(Settings):
        train_tasks: Positive = 640
        dev_tasks: Positive = 240
        test_tasks: Positive = 300
        calls: Annotated[int, Field(ge=FEWEST_CALLS, le=MOST_CALLS)] | None = None
        """Calls that each task needs, errors and the answer included: long tasks, whose calls depend on each other.
        Without it, short tasks of one to seven calls."""

    def __init__(self, config: Config, seed: int) -> None:
        sizes: dict[Split, int] = {"train": config.train_tasks, "dev": config.dev_tasks, "test": config.test_tasks}
        self.config, self.seed = config, seed
        self.store = Store(seed)
        self._trails: dict[str, Trail] = {}
        self._cases: dict[Split, list[Case]] = {}
        for split in SPLITS:
            if config.calls is None:
                self._cases[split] = write_cases(self.store, split, sizes[split], seed)
                continue
            long = write_long_cases(split, sizes[split], config.calls, seed)
            self._cases[split] = [case for case, _ in long]
            self._trails |= {case.task.id: trail for case, trail in long}
        self._by_id = {case.task.id: case for cases in self._cases.values() for case in cases}
        self._apis = {provider.full(api): (provider, api) for provider in PROVIDERS.values() for api in provider.apis}

    def tasks(self, split: Split) -> list[Task]:
        """Every task of a split, its groups in turn, so that any first n of them are spread over the groups."""
        return [case.task for case in self.cases(split)]

    def reference(self, task: Task) -> Reference:
        return self.case(task).reference

    def open(self, task: Task, seed: int) -> CaseSession:
        """A fresh session. `seed` changes nothing: hiccups belong to the task, so every client meets the same."""
        return self._session(self.case(task))

    def demonstrations(self, count: int, flawed: float, seed: int) -> list[Trajectory]:
        """`count` traces of distinct training tasks, of which round(flawed * count) end unsolved.

        Raises InputError where the world has fewer training tasks than `count`.
        """
        most = MAX_CALLS if self.config.calls is None else self.config.calls + 1
        return expert_demonstrations(self.cases("train"), self._session, count, flawed, seed, most)

    def cases(self, split: Split) -> list[Case]:
        """Tasks with their solutions: for demonstrations and tests, never for a policy."""
        return of_split(split, self._cases, "world mini")

    def case(self, task: Task) -> Case:
        return case_of(task, self._by_id, "world mini")

    def _session(self, case: Case) -> CaseSession:
        if case.task.id in self._trails:
            return LongSession(case, self._trails[case.task.id])
        return MiniSession(self.store, case, self._apis)
