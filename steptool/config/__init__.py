"""The settings of a project, and where its files lie."""
