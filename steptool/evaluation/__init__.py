"""Budget-locked evaluation, paired comparison, and the report."""
