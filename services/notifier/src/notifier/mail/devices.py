"""What a mail says about a device.

A device describes itself (`User-Agent`, RFC 9110 §10.1.5). That text is somebody else's and could advertise, so a mail
names only programs and systems that are known.
"""

from typing import Final

# In this order, because most browsers also name those that they are compatible with.
_PROGRAMS: Final = {
    "Edg": "Edge",
    "OPR": "Opera",
    "SamsungBrowser": "Samsung Internet",
    "Firefox": "Firefox",
    "FxiOS": "Firefox",
    "CriOS": "Chrome",
    "Chrome": "Chrome",
    "Safari": "Safari",
    "curl": "curl",
    "python": "Python",
    "node": "Node.js",
    "okhttp": "an Android app",
}
_SYSTEMS: Final = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}


def describe_device(user_agent: str | None) -> str:
    """Such as `Firefox on Linux`."""
    program, system = (
        next((name for mark, name in known.items() if mark in (user_agent or "")), None)
        for known in (_PROGRAMS, _SYSTEMS)
    )
    return " on ".join(filter(None, (program or "Unknown program", system)))
