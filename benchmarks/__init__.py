"""Speed and learning, each printing ratios measured in one run."""
