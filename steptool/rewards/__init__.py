"""From trajectories to judgements, and from judgements to rewards."""
