"""Models that answer elsewhere, behind OpenAI's chat completions: a vendor's, or one of the team's own."""
