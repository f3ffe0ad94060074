"""The plugins of this package by kind and name. To add one: write its file, and a row here.

No stage reaches this table by its imports, so a new row makes no stage stale.
"""

from __future__ import annotations

BUILT_IN: dict[str, dict[str, str]] = {
    "world": {
        "mini": "steptool.worlds.mini.world:MiniWorld",
        "recorded": "steptool.worlds.recorded:RecordedWorld",
        "functions": "steptool.worlds.functions:FunctionsWorld",
    },
    "format": {"json_call": "steptool.formats.json_call:JsonCall"},
    "engine": {"vllm": "steptool.engines.vllm_local:VllmEngine"},
    "search": {"chain": "steptool.rollouts.chain:Chain"},
    "demonstrations": {
        "experts": "steptool.traces.experts:Experts",
        "file": "steptool.traces.file:TraceFile",
    },
    "annotator": {"rules": "steptool.annotators.rules:Rules"},
    "reward": {
        "potential": "steptool.rewards.potential:Potential",
        "paper": "steptool.rewards.paper:Paper",
    },
    "method": {
        "sft": "steptool.methods.sft:Sft",
        "rft": "steptool.methods.rft:Rft",
        "step_ppo": "steptool.methods.step_ppo:StepPpo",
    },
    "metric": {},
}
"""Kind → name in params.yaml → `module:Class`."""
