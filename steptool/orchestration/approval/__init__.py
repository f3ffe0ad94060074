"""What a promotion asks a person, and the answer."""
