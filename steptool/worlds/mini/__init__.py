"""The bundled world `mini`: categories, providers, APIs, tasks and expert demonstrations from one seed."""

from steptool.worlds.mini.session import MiniSession
from steptool.worlds.mini.world import MiniWorld

__all__ = ["MiniSession", "MiniWorld"]
