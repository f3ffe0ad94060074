"""A world of recorded attempts: `world: {use: traces, path: traces/support}`, after `steptool traces import`.

replies.py   which recorded reply a call gets
world.py     the world: tasks of the folder, tools that reply as they did then
"""
