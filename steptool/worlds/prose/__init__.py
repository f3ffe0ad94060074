"""Reads what an answer in prose says: the one number, or the names, that it commits itself to.

    "In total they cost $25.00."        25
    "It is not 13 but 12.5."            12.5
    "12.5 or 13"                        nothing: two candidates
    "The author is Nora Lund."          Nora Lund, and nobody else

A policy in training finds whatever is paid by mistake, so one principle is above all rules here: **an answer says one
thing, and what it says does not depend on what was expected.** A number is read out of the answer before it is
compared; names are right only where nothing else in the answer could be a name. So no wording is right for two
different answers, and hedging gains nothing. In doubt an answer is refused: a policy learns to answer plainly, and a
wrong answer that is paid it learns for good.

    clauses        what of a text is asserted: not what is denied, asked, supposed or compared with
    numbers        the one number that is asserted
    number_words   "two hundred and five" as 205
    names          whether exactly these names are asserted
    words          English words that are no answer by themselves
"""
