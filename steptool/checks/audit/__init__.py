"""Can the step rewards of a project be earned without doing the task? Attacks, and what they earn."""
