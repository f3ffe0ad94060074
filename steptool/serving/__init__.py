"""A trained policy for an ordinary OpenAI client: vLLM's server, with our chat template and parser of calls."""
