"""Which tools does a policy choose? Queries with graded relevant tools, as ToolLens has them.

texts    a tool out of the text that describes it
files    queries, tools and grades, from a folder
metrics  what the first tools that an attempt calls are worth    pure
world    the world `toollens`
"""
