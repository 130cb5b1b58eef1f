"""Keep offensive words out of the demo.

WordNet defines slurs and vulgar words like any others. Two nets catch them: words in a gloss that mark the
synset (lexicographers say "offensive", "slur", "vulgar" ...), and a list of words that must not occur anywhere,
neither in a gloss nor as a lemma in somebody else's list. The list is broader than needed: it also drops
medical and historical words, because a demo loses nothing without them.
"""

from __future__ import annotations

import codecs
import re

MARKED = re.compile(
    r"\b(offensive|slurs?|derogat\w*|disparag\w*|vulgar\w*|obscen\w*|pejorativ\w*|contempt\w*|taboo|ethnic|"
    r"insult\w*|profan\w*|abusive|swear\w*|curses?|expletive|crude term|racist|racial|sexual\w*|sex|lewd\w*|"
    r"indecen\w*|ridicule|dirty word|negroes|blacks?\s+(people|person|man|woman)|coarse\s+term|effeminate|"
    r"excret\w*|genital\w*|homosexual\w*|lustful\w*|incestuous|mental(ly)? retard\w*|stupid person|"
    r"stupid people|foolish person|immoral\w*|promiscu\w*)\b",
    re.I,
)
# Written in ROT13 so that nobody who reads the code has to read the words.
_ROT13 = """
nobevtvar nobevtvarf nqhygrere nqhygrel nyovab nany nagvfrzvgr nagvfrzvgvp nahf ncuebqvfvnp nefr nefrubyr
nff nffrf nffubyr nffxvffre onyybpx onfgneq onfgneqyl ornare orfgvnyvgl ovzob ovfrkhny ovfrkhnyvgl ovgpu
ovgpurel ovgpul oynpxnzbbe oybjwbo obpur obss obuhax obyybpx obyybpxf obax obbo obbof obeqryyb obfbz oebgury
ohttre ohttrel ohyyfuvg ohz ohzcxva ohzf ohgg ohggurnq ohggbpx ohggbpxf ohggf pnssre pnyytvey pneany
pnfgengr pnfgengrq pnfgengvba pngnzvgr puvanzna puvax puynzlqvn pyvgbevf pbpx pbpxf pbpxfhpxre pbpbggr
pbvgny pbvgvba pbvghf pbyberq pbaphovar pbaqbz pbagenprcgvba pbagenprcgvir pbbyvr pbba pbchyngr pbchyngvba
pbhegrfna penc penccl pergva pevccyr pebgpu phpxbyq phaavyvathf phag qntb qnza qnzarq qnexrl qnexvr qnexl
qronhpu qronhpurq qronhpurel qrsrpngr qrsrpngvba qrsybjre qvpx qvpxurnq qvzjvg qbtfuvg qbat qbhpur qbhpuront
qbkl qlxr rwnphyngr rwnphyngvba rerpgvyr rerpgvba rebtrabhf rebgvp rebgvpn rebgvpvfz rfxvzb rhahpu snrprf
snt snttbg sntbg sntbgrre snaal sneg snegvat sngfb srpny srprf sryyngr sryyngvb srgvfu sybbmvr sybbml
sberfxva sbeavpngr sbeavpngvba sbeavpngbe shpx shpxrq shpxre shpxvat shpxhc travgny travgnyvn travgnyf
trabpvqr tbqqnz tbqqnza tbqqnzarq tbabeeurn tbbx tbl ternfre tevatb tlc tlcfl unysoerrq unysjvg uneqpber
uneybg urngura urezncuebqvgr urecrf urgrebfrkhny uvpx uvyyovyyl uvgyre ubre ubzb ubzbfrkhny ubzbfrkhnyvgl
ubaxrl ubaxl ubbxre ubefrfuvg ubggragbg uha uhffl ulzvr vqvbg vzorpvyr vaprfg vaprfghbhf vasvqry vawha
vagrepbhefr wnpxnff wnpxnffrf wnc wrjobl wrjrff wvtnobb xnssve xnsve xvxr xyhk xabpxre xenhg xenhgurnq xh
ynovn ynqlobl yneqnff ynfpvivbhf yrpure yrpurebhf yrpurel yrfovna yrfob yrjq yrmmvr yvovqvabhf yvovqb yvzrl
ybyvgn yhfg yhfgshy ylapu ylapuvat znfbpuvfz znfbpuvfg znfbpuvfgvp znfgheongr znfgheongrf znfgheongvba
zrafrf zrafgehny zrafgehngr zrafgehngvba zrfgvmb zvpx zvqtrg zvak zbyrfg zbyrfgngvba zbyrfgre zbatbyvfz
zbatbybvq zbeba zbgureshpxre zhynggb anxrq anapr anmv anmvf anmvfz arterff arteb artebvq avttn avttnm avttre
avten avapbzcbbc avccyr avccyrf avgjvg ahqr ahqvgl alzcurg alzcubznavn alzcubznavnp bpgbebba bsnl banavfz
betnfz betnfzvp betvrf betl bevragnyf cnqql cnrqbcuvyr cnxv cnafl crpxre crqrenfg crqbcuvyr crqbcuvyvn
cravyr cravf creirefvba creireg creiregrq cunyyvp cunyyhf cvppnavaal cvpxnavaal cvqqyr cvzc cvzcf cvaurnq
cvff cvffrq cvffre cbtebz cbynpx cbbs cbbir cbexre cbea cbeabtencure cbeabtencuvp cbeabtencul cbhs cerchpr
cevpx cebfgvghgr cebfgvghgrf cebfgvghgvba chorf chovp chovf chff chffl chgm dhnqebba dhrre enturnq encr
encrq encrf encvat encvfg enivfu erpgny erpgnyyl erpghz erqarpx erqfxva ergneq ergneqrq fnqvfz fnqvfg
fnqvfgvp fnqbznfbpuvfz fnzob fnglevnfvf fnintr fnintrf fpuybat fperjvat fpebghz fphz fphzont frqhpr frqhpre
frqhpgvba frzra frk frkrf frkyrff frkhny frkhnyvgl frkhnyyl frkl funt furral furtrgm furznyr fuvxfn fuvg
fuvgr fuvggl fvzcyrgba fvffl fxnax fynggrea fyhg fyhggvfu fangpu fabg fbqbzvgr fbqbzl fbabsnovgpu fcnfgvp
fcrez fcvp fcvpx fdhnj fgerrgjnyxre fgevccre fgevcgrnfr fgehzcrg fhvpvqny fhvpvqr flcuvyvf flcuvyvgvp gnvt
gneg grfgrf grfgvpyr grfgvpyrf grfgvf gvg gvgf gvggl genaal genaffrkhny genafirfgvgr gebyybc gheq ghfu ghful
gjng hafrkrq hevangr hevangvba intvan intvany irarerny ivetva ivetvavgl iblrhe iblrhevfz ihyin jnax jnaxre
jrapu jrgonpx juvgrl juber juberubhfr juberznfgre jvzc jbt jbc lvq lbxry mbbcuvyvn
"""
BANNED = frozenset(codecs.decode(_ROT13, "rot13").split())
# Entries of the finished vocabulary that are kept out of every list: word pieces that spell a banned word, and
# two harmless-looking words with a derogatory or vulgar sense.
RETIRED = frozenset(codecs.decode("jryfu fzhg", "rot13").split())
_WORDS = re.compile(r"[a-z]+")


def banned_words(text: str) -> set[str]:
    """The words of `text` that must not ship, plural forms included."""
    found = set()
    for word in _WORDS.findall(text.lower()):
        if word in BANNED or (word.endswith("s") and (word[:-1] in BANNED or word[:-2] in BANNED)):
            found.add(word)
    return found


def is_retired(token: str) -> bool:
    """True for a vocabulary entry that no list may show."""
    word = token.lstrip("Ġ")
    return word in RETIRED or word.lower() in BANNED


def is_clean(text: str) -> bool:
    """True if nothing marks the text as offensive and no banned word occurs in it."""
    return not MARKED.search(text) and not banned_words(text)
