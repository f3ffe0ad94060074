"""English words that are no answer by themselves: what may stand beside a right answer without being another one.

No state of anything (open, shipped), no colour, day, place, thing or kind of thing is among them, no `yes` and no `no`:
such a word may be the answer that another task expects, so it must not be said beside one for free.
"""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of a text, between its spaces."""
    return frozenset(text.split())


CORE = word_set(
    """
    a an the this that these those there here it its it's itself he she they them their theirs his her hers him we us
    our ours you your yours i me my mine one's who whom whose which what where when while
    is are was were be been being am isn
    's s 're 've 'll 'd re ve ll
    has have had having do does did
    of by in on at to from for with as into onto via per
    and so then thus therefore hence also too indeed just only exactly simply both all each
    because since after before during within under according based
    please sure certainly course okay ok well great thanks thank hello hi
    answer answers result results correct following follows namely i.e ie
    found find according shows show shown says say said means mean
    but however instead actually & +
    current currently let know need hope help helps
    """
)
"""Allowed beside every answer."""

COMMON = word_set(
    """
    called named titled known listed given returned provided identified looked looking checked checking searched
    search searching seems appears believe think probably likely see seen get got would looks like about
    name names title titles list lists item items value values option options choice entry entries record records
    question query information info data details detail database catalogue catalog system tool tools output response
    total number count amount sum
    author authors written wrote writes writing writer novel publication published publishes publisher
    owner owners owned owns own manager managed manages manage managing director directed directs
    actor composer composed painter painted artist singer sung founder founded invented inventor designed designer
    created creator made make makes built builder produced producer leads led leader head runs run works work working
    located lies lie stands stand situated lives live living born comes come goes go went belongs belong
    costs cost priced price prices rated rating ratings score scored scores ranked rank
    has offers offer offered provides serves
    meets meet matches match matching fits fit satisfies satisfy qualifies qualify available
    person people man woman place places
    cheaper cheapest dearer dearest best better worse worst higher highest lower lowest larger largest smaller smallest
    bigger biggest longer longest shorter shortest older oldest newer newest younger youngest earlier earliest later
    latest nearer nearest closer closest faster fastest slower slowest more most less least fewer fewest first last next
    copy copies piece pieces unit units star stars dollar dollars euro euros usd eur
    very quite overall currently now today
    matching relevant respective respectively final short full
    recommend recommended recommends suggest suggested choose chosen pick picked select selected
    """
)
"""Allowed beside a name, which has a capital letter or a digit: nobody is called so."""

THINGS = word_set(
    """
    book books hotel hotels inn restaurant restaurants shop shops store stores order orders product products room rooms
    flight flights train trains bus city cities town country countries street company companies customer customers user
    users employee employees team teams member members student students teacher movie movies film films song songs album
    albums game games event events meeting meetings message messages email file files project projects account accounts
    address number phone date time day department office building station airport article articles story stories
    """
)
"""Allowed beside a name of several words, or with a digit: nobody is called so, though some things are."""
