"""Takes secrets out of texts that people get to see: logs, errors, settings that are shown.

It knows passwords inside URLs, also in URLs that are written wrong, and values whose name says what they are. It hides
too much rather than too little.
"""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"

# Up to the last "@", since people forget to percent-encode "/" and "@" in a password.
_IN_URL: Final = re.compile(r"""(?<=://)([^\s"'/:@]*):[^\s"']*@""")
# What was meant to be a URL: ":password@host", "redis:/:password@host".
_IN_WORD: Final = re.compile(r"""(?<![^\s"'=])(?![^\s"']*://)[^\s"'@]*:[^\s"']*@""")
_NAMED: Final = re.compile(r"""(?i)(pass(?:word|wd|phrase)?|secret\w*|\w*access_key\w*)(=)[^\s"'&,;]+""")


def without_secrets(text: str) -> str:
    if "@" in text:
        text = _IN_WORD.sub(f"{MASK}@", _IN_URL.sub(rf"\1:{MASK}@", text))
    if "=" in text:
        text = _NAMED.sub(rf"\1\2{MASK}", text)
    return text


def holds_secret(text: str) -> bool:
    return without_secrets(text) != text


__all__ = ["MASK", "holds_secret", "without_secrets"]
