"""Where a text has keys, tokens or passwords, by pattern: kind, start and end of each.

Time stays linear in the text, for the reasons given in data/personal.py.
"""

import re

from tunesmith.data.spans import Rule, Span, apart, matches


def secret(text: str) -> list[Span]:
    """Keys, tokens, private keys and passwords, in order, no two overlapping.

    Kinds: private_key, password_in_url, token, and assigned: a value that the text calls a
    password or a key.
    """
    found = list(matches(text, TOKENS)) if MARK.search(text) else []
    if NAMED.search(text):
        found += matches(text, ASSIGNED)
    return apart(found)


STAND_IN = re.compile(
    r"(?i)x{4,}|\*{3,}|\.{3}|your|example|change[_-]?me|placeholder|redacted|dummy|<|\$\{|%\(|env\b"
    r"|environ|getenv|process\.|None|null|password\d?$|^https?:|\(|^\$[A-Za-z_]"
)


def placeholder(value: str) -> bool:
    """What documentation writes where a secret would stand."""
    return STAND_IN.search(value) is not None or len(set(value)) < 4


def mixed(value: str) -> bool:
    """Letters with digits or with signs inside: neither a word, nor a number, nor a path."""
    value = value.rstrip(".!?:)*")
    letters = any(map(str.isalpha, value))
    odd = any(map(str.isdigit, value)) or re.search(r"[!@#$%^&*+~]", value) is not None
    return len(value) >= 8 and letters and odd


def real(value: str) -> bool:
    """What stands behind `password =` and is one."""
    return mixed(value) and not placeholder(value)


MARK = re.compile(
    r"AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|glpat-|xox|xapp-|AIza|ya29\.|GOCSPX|sk-|[srp]k_"
    r"|whsec_|SG\.|npm_|pypi-|hf_|key-|sq0|shp|dop_v1|AccountKey|eyJ|PRIVATE KEY|://|(?i:bearer )"
    r"|AGE-SECRET|\bAC[0-9a-f]{8}|\bSK[0-9a-f]{8}|dapi|PMAK|lin_api|secret_|glc_|:AA|discord"
)
EDGE = r"(?![A-Za-z0-9_-])"
START = r"(?<![A-Za-z0-9_-])"
SHAPES = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}",  # AWS
    r"gh[pousr]_[A-Za-z0-9]{30,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"glpat-[A-Za-z0-9_-]{20,64}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{10,250}",  # Slack
    r"AIza[0-9A-Za-z_-]{35}|ya29\.[0-9A-Za-z_-]{20,250}|GOCSPX-[A-Za-z0-9_-]{28}",  # Google
    r"sk-(?:proj-|ant-|or-|svcacct-|admin-)?[A-Za-z0-9_-]{20,250}",  # OpenAI, Anthropic
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,250}|whsec_[A-Za-z0-9+/=]{24,80}",  # Stripe
    r"(?:AC|SK)[0-9a-f]{32}",  # Twilio
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
    r"npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,250}|hf_[A-Za-z0-9]{30,60}",
    r"key-[0-9a-f]{32}",  # Mailgun
    r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,43}|shp(?:at|ca|pa|ss)_[0-9a-f]{32}|dop_v1_[0-9a-f]{64}",
    r"dapi[0-9a-f]{32}|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|lin_api_[A-Za-z0-9]{40}",
    r"secret_[A-Za-z0-9]{43}|glc_[A-Za-z0-9+/=]{32,250}",  # Notion, Grafana
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    r"\d{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
    r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}",  # JWT
)
TOKENS = (
    Rule(
        "private_key",
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[^-]{0,8000}-----END [A-Z0-9 ]{3,40}-----|[A-Za-z0-9+/=\s]{0,8000})"
        ),
    ),
    Rule(
        "token",
        re.compile(
            r"https://(?:hooks\.slack\.com/services/T\w{6,14}/B\w{6,14}/\w{16,32}"
            r"|(?:canary\.|ptb\.)?discord(?:app)?\.com/api/webhooks/\d{16,20}/[\w-]{60,70})"
        ),
    ),
    *(Rule("token", re.compile(START + f"(?:{shape})" + EDGE)) for shape in SHAPES),
    Rule("token", re.compile(r"AccountKey=(?P<value>[A-Za-z0-9+/]{86}==)")),  # Azure
    Rule(
        "token",
        re.compile(r"(?i)\bbearer (?P<value>[A-Za-z0-9._~+/-]{20,2000}=*)(?![A-Za-z0-9])"),
        mixed,
    ),
    Rule(
        "password_in_url",
        re.compile(
            r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{0,64}:(?P<value>[^\s/@\"'<>]{3,200})@"
        ),
        lambda found: not placeholder(found),
    ),
)
NAMED = re.compile(
    r"(?i)passw|passphrase|\bpwd|\bpass\b|secret|token|api[_ -]?key|access[_ -]?key"
    r"|private[_ -]?key|encryption[_ -]?key|credential|auth[_-]?key|\bpin\b"
)
NAME = (
    r"(?:[a-z0-9]{1,20}[_-]){0,4}(?:password|passwd|passphrase|pwd"
    r"|secret(?:[_ -]?(?:access[_ -]?)?key)?|(?:api|access|private|encryption|auth|account)"
    r"[_ -]?key|(?:auth|access|api|refresh|bearer|bot)[_ -]?token|token|credentials?)"
)
ASSIGNED = (
    Rule(
        "assigned",
        re.compile(
            rf"(?i)(?<![a-z0-9]){NAME}[\"'`]? ?(?::=|=>|[:=]) ?[\"'`]?"
            r"(?P<value>[^\s\"'`,;<>(){}\[\]]{8,256})"
        ),
        real,
    ),
    Rule(
        "assigned",
        re.compile(
            r"(?i)\b(?:password|passwd|passphrase|passcode|api key|access key|secret key|token)"
            r" (?:is|was|to|set to|=|:) ?[\"'`]?(?P<value>[^\s\"'`,;<>(){}\[\]]{8,256})"
        ),
        real,
    ),
)

KINDS = tuple(dict.fromkeys(rule.kind for rule in (*TOKENS, *ASSIGNED)))
"""Every kind of secret that is found here."""
