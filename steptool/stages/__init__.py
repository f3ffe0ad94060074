"""One module a DVC stage: load, call pure functions, save, log."""
