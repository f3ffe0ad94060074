"""A team's code, in processes of its own: its tools, the functions that check what an attempt did, and its agent.

    this process                     fork server                     child
    ForkServer ─── control ───────▶  imports the module once
    Worker ─────── watch ─────────▶  forks, interrupts, kills        one attempt: one object of the class
       └────────── data ──────────────────────────────────────────▶  calls in, replies out, one JSON line each

A child costs some milliseconds and shares its memory with the fork server until it writes. Whatever the code does (it
hangs, exits, floods, forks, takes all memory, reads the keyboard, prints) costs the call in which it does so. No
process outlives its attempt, nor this process: a socket that closes is what ends them.

All children begin as copies: random numbers of the module are the same in each attempt, and threads that it starts when
it is imported do not run in them.
"""
