"""StepTool: step-grained reinforcement learning for tool use, as a pipeline."""

__version__ = "0.1.0"
