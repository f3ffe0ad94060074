"""Long tasks of the bundled world: something is followed from place to place until it is found."""
