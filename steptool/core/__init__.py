"""What everything stands on: types, errors, files. Needs only pydantic."""
