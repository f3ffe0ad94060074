"""WorkBench (arXiv 2405.00823): requests of an office, 27 tools over five databases, judged by what the calls changed.

pack      the files of the benchmark, read and checked
office    the databases of one session, and when two offices are equal
tools/    the tools, a file for each domain
toolbox   all of them by name, as a policy is shown them
session   one attempt
world     the world: splits by template
replay    recorded runs, made again with these tools: what differs
"""
