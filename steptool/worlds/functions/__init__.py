"""A world of a team's own functions: `world: {use: functions, module: tools.py, tasks: tasks.jsonl}`.

    def price(title: str) -> float:
        '''Price of a book in dollars.

        Args:
            title: the whole title, as `search` gives it
        '''

Every public function of the module is a tool, plain or async; `module: 'tools.py:Shop'` takes the methods of a class
instead, which is made anew for each attempt and so keeps the state of one. Signature and docstring are what the policy
reads. How tasks are written is in `tasks`.
"""

from steptool.worlds.functions.world import FunctionsWorld

__all__ = ["FunctionsWorld"]
