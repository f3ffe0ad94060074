"""ToolBench's requests and functions, answered by what was recorded, and by a model that poses as the services.

names      what ToolBench calls a function                    pure
replies    which recorded reply a call gets                   pure
pack       one layout of files: a line for each request, and for each call
stable     the other: StableToolBench's `solvable_queries`, `tools` and `tool_response_cache`
library    what a folder holds, in either
simulator  a model that answers in place of a service
desk       all of these behind one question: what does this call get?
metrics    where replies came from, as an evaluation counts it    pure
base       requests as tasks, and attempts at them, whoever replies
world      the world `toolbench`
http       the world `http`: the same requests, answered by a server
server     that server: `steptool serve-tools`
"""
