"""Finished attempts that somebody else judged, such as the published runs of StepTool: read, and measured again."""
