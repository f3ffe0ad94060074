"""The Berkeley Function Calling Leaderboard: `world: {use: bfcl}`, from the package bfcl-eval of its authors.

package    finds the installed package, its data, its tool classes and its checker
records    the lines of its data files
tools      its descriptions of functions as tools with a JSON schema
backends   the objects whose methods the calls of one session run
turns      a session of several turns, judged by state and replies after each
answers    whether calls are those that a task of one turn accepts
single     a session of one turn
cases      tasks with their ground truth, out of all these
"""

from steptool.worlds.bfcl.world import BfclWorld

__all__ = ["BfclWorld"]
