"""What is said in trajectories: words of replies, and the links between steps. Pure."""
