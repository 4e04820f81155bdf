"""Words that decide whether two questions may have one answer; what is not here decides nothing by itself."""

from __future__ import annotations

from typing import Final


def _words(several: str) -> frozenset[str]:
    return frozenset(several.split())


def _sides(pairs: str) -> dict[str, tuple[tuple[int, int], ...]]:
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for number, pair in enumerate(pairs.split()):
        for side, word in enumerate(pair.split("/")):
            found[word] = (*found.get(word, ()), (number, side))
    return found


NUMBERS: Final = _words("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
    billion trillion dozen half quarter third double triple once twice first second fourth fifth sixth seventh
    eighth ninth tenth hundreds thousands millions billions both single plus minus times squared cubed
""")
"""Amounts and what is done with them."""

TIMES: Final = _words("""
    today tomorrow yesterday tonight now currently recently soon morning afternoon evening night noon midnight
    monday tuesday wednesday thursday friday saturday sunday weekday weekend january february march april june
    july august september october november december spring summer autumn winter daily weekly monthly yearly
    annual annually hourly hour hours minute minutes day days week weeks month months year years decade century
""")
"""When, and how long."""

NEGATIONS: Final = _words("""
    not no never none nothing nobody nowhere neither nor without cannot except unless hardly barely lack lacks
    nicht kein keine keinen keinem keiner keines nie niemals ohne weder pas jamais aucun aucune sans ni rien sin
    nunca ningún ninguna ninguno tampoco não nem sem senza mai nessun nessuno nessuna niet geen nooit zonder
    inte ikke не нет ни без никогда
""")
"""What turns a sentence round, in the languages of most callers."""

DIRECTIONS: Final = _words("""
    to into than versus vs over against after before beats
""")
"""Words whose two sides cannot be exchanged."""

FUNCTION_WORDS: Final = _words("""
    a an the this that these those of for from by with at on in into to as and or if then so is are was were be
    been being am do does did done doing has have had having can could may might must shall should will would i
    me my mine you your yours we us our ours they them their it its it's what what's whats which how how's there
    here please tell show explain give describe just exactly really actually some any also about go get let
    let's want wanted need i'd i'm i'll i've we're you're hello hi hey thanks thank kindly way best
""")
"""What holds a sentence together, or is polite, and says nothing of what it is about."""

OPPOSITES: Final = _sides("""
    before/after min/max minimum/maximum minimize/maximize minimise/maximise lowest/highest low/high
    lower/higher least/most less/more fewer/more worst/best worse/better smallest/largest small/large
    smaller/larger small/big smaller/bigger shortest/longest short/long slow/fast slower/faster slowest/fastest
    cheap/expensive decrease/increase decreasing/increasing reduce/increase lose/gain loss/gain loss/profit
    sell/buy disable/enable disabled/enabled off/on close/open closed/open stop/start end/start end/begin
    remove/add delete/add delete/create decrypt/encrypt decode/encode import/export download/upload
    upgrade/downgrade pull/push read/write input/output incoming/outgoing out/in down/up under/over below/above
    outside/inside back/forward left/right south/north west/east cold/hot cool/heat false/true wrong/right
    bad/good dangerous/safe against/for con/pro cons/pros disadvantages/advantages negative/positive
    subtract/add divide/multiply lock/unlock old/new oldest/newest older/newer younger/older past/future
    last/next previous/next last/first earliest/latest early/late private/public female/male woman/man women/men
    girl/boy mother/father wife/husband she/he her/his daughter/son sister/brother ascending/descending
    refuse/accept reject/accept fail/succeed failure/success deny/allow forbid/allow exclude/include lend/borrow
    arrive/leave arrival/departure teach/learn ask/answer give/take send/receive why/how who/where when/where
    when/why who/when how/where how/when what/why what/when what/where what/who who/how
""")
"""Of each word the numbers of its pairs, and the side of each on which it stands."""
