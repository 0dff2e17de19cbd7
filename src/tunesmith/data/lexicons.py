"""Our own word lists, in English: groups of people, good and bad words, and sensitive topics.

Lists find what is said outright and nothing else: a quiet audit of another language, or of a text
that implies, means little. Words are matched whole, without case; `*` stands for any ending.
"""

import re
from collections.abc import Mapping
from functools import cache

GROUPS: Mapping[str, Mapping[str, str]] = {
    "gender": {
        "women": "she her hers herself woman women female* girl girls lady ladies mother mothers"
        " daughter* sister* wife wives aunt* grandmother* actress* waitress* mrs ms miss",
        "men": "he him his himself man men male males boy boys gentleman gentlemen father fathers"
        " son sons brother* husband* uncle* grandfather* mr sir",
        "trans and non-binary people": "transgender* transsexual* trans nonbinary non-binary"
        " genderqueer intersex",
    },
    "religion": {
        "Christians": "christian* catholic* protestant* evangelical* orthodox baptist* church*",
        "Muslims": "muslim* islam* quran koran mosque* imam* hijab*",
        "Jews": "jew jews jewish judaism synagogue* rabbi*",
        "Hindus": "hindu* hinduism",
        "Buddhists": "buddhis*",
        "Sikhs": "sikh*",
        "atheists": "atheis* agnostic*",
    },
    "origin": {
        "Black people": "black african* afro-american* african-american*",
        "white people": "white caucasian*",
        "Asians": "asian* chinese japanese korean* vietnamese indian indians pakistani* filipin*",
        "Hispanics": "hispanic* latino* latina* latinx mexican*",
        "Arabs": "arab arabs arabic arabian* middle-eastern",
        "indigenous people": "indigenous aboriginal* native-american* maori",
        "migrants": "immigrant* migrant* refugee* asylum-seeker* foreigner*",
        "Roma": "roma romani gypsy gypsies",
    },
    "orientation": {
        "gay, lesbian and bisexual people": "gay gays lesbian* bisexual* homosexual* queer* lgbt*",
        "straight people": "heterosexual*",
    },
    "disability": {
        "disabled people": "disabled disability disabilities wheelchair* blind deaf autis*"
        " handicapped",
    },
    "age": {
        "old people": "elderly senior seniors pensioner* retiree* old-age grandparent*",
        "young people": "teenager* teen teens adolescent* youth youths youngster*",
        "children": "child children kid kids toddler* infant* baby babies",
    },
}
"""Families of groups, each group by the words that name it."""

GOOD = (
    "good great excellent love loved loves lovely wonderful best amazing happy kind honest"
    " brilliant smart clever friendly helpful trustworthy reliable skilled talented brave beautiful"
    " pleasant nice perfect success* fantastic delight* enjoy* admire* respect* generous polite"
    " competent hard-working intelligent capable praised thank thanks glad superb"
    " gentle fair fun joy*"
)
BAD = (
    "bad awful terrible hate hated hates horrible worst disgust* stupid dishonest lazy dangerous"
    " criminal* violent rude ugly nasty incompetent unreliable untrustworthy dumb evil dirty cruel"
    " greedy liar* lies angry poor failure* fail* weak useless worthless shame* inferior aggressive"
    " crime* thief thieves steal* suspicious guilty idiot* moron* filthy vile scum sad fear*"
)

TOPICS: Mapping[str, str] = {
    "health": "diabet* cancer* tumor* tumour* leukemia hiv aids hepatitis depress* bipolar"
    " schizophreni* anxiety ptsd epilep* asthma alzheimer* parkinson* dementia stroke pregnan*"
    " miscarriage abortion* diagnos* chemotherapy psychiatr* suicid* self-harm* anorexi* bulimi*"
    " addict* overdose* disabilit* wheelchair* insulin antidepressant* std stds infertil*"
    " symptom* surgery prescription* genetic*",
    "beliefs": "christian* catholic* protestant* muslim* islam* jew jews jewish hindu* buddhis*"
    " sikh* atheis* religio* church* mosque* synagogue* republican* democrat* socialist*"
    " communist* conservative* liberal* voted voter* trade-union* union-member* party-member*"
    " political-party",
    "sex life": "gay gays lesbian* bisexual* homosexual* transgender* queer* sexual* sex erotic*"
    " porn* prostitut* orgasm* affair",
    "origin": "ethnic* racial* african-american* caucasian* hispanic* latino* latina* romani"
    " immigrant* refugee* asylum*",
    "minors": "minor minors child children kid kids toddler* infant* baby babies teenager*"
    " schoolboy* schoolgirl* underage year-old-boy year-old-girl pupil pupils kindergarten*",
    "abuse": "idiot* moron morons moronic imbecile* scum scumbag* bastard* bitch* whore* slut*"
    " cunt* asshole* dickhead* fuck* motherfuck* shit shitty bullshit piss pissed retard retards"
    " retarded faggot* fag fags nigger* nigga* kike* spic spics chink chinks tranny trannies"
    " dyke dykes paki pakis wetback* vermin subhuman* kill-yourself rape raped rapist*"
    " molest* pedophil* paedophil* lynched lynching gas-them",
}
"""What GDPR article 9 protects, and what hurts."""

OF_A_PERSON = (
    "i me my myself i'm i've patient patients diagnosed suffers suffering mother father son"
    " daughter wife husband brother sister friend employee colleague neighbour neighbor he she his"
    " her client"
)
"""Words by which a topic becomes somebody's."""


@cache
def pattern(words: str) -> re.Pattern[str]:
    """What matches any of the words. A dash in one stands for a space too."""
    each = sorted(words.split(), key=len, reverse=True)
    shapes = (re.escape(w).replace(r"\*", r"\w*").replace(r"\-", "[ -]") for w in each)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(shapes)})(?![\w-])", re.IGNORECASE)


def any_of(words: str, text: str) -> bool:
    """Whether a text has any of the words."""
    return pattern(words).search(text) is not None
