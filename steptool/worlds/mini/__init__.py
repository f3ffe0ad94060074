"""The bundled world `mini`: categories, providers, APIs, tasks and expert demonstrations from one seed."""

from steptool.worlds.mini.demonstrations import expert_demonstrations
from steptool.worlds.mini.session import MiniSession
from steptool.worlds.mini.world import MiniWorld, expert_steps

__all__ = ["MiniSession", "MiniWorld", "expert_demonstrations", "expert_steps"]
