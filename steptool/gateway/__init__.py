"""An OpenAI-compatible server of this process, behind which a team's own agent finds the policy, unchanged."""
