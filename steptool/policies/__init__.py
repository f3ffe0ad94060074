"""Policy folders, base models, adapters and their types of number."""
