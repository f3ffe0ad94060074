"""A local page that opens attempts of any stage: search, filter, and see where attempts at one task part.

    sources   which files of attempts a project has
    records   what a list shows of an attempt, read without its tokens
    index     one source: its rows while they are read, search, and whole records on demand
    tasks     what is known of a task: its question, its tools, the answer that is expected
    credit    what each step earned, and which of its tokens the training pushed
    detail    one attempt, step by step, as the page shows it
    tokens    the token stream as text
    server    the page and its data, on loopback, below an address that nobody can guess

Everything that a tool, a user or a model wrote is untrusted: it travels as JSON and becomes text nodes, nothing else.
"""
