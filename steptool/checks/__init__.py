"""May this data be trained on? Great Expectations suites, the gate and its page."""
