"""The small model of annotator `local_judge`: what it looks at, and how it is fitted."""
