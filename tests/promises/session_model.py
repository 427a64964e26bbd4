"""Which tokens of a person are valid, as a plain model in memory: at auth, and at a service that hears of it later."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Session:
    id: str
    started: int
    """The version of the account when the person signed in."""
    refresh_tokens: list[str]
    """Newest last."""
    is_repeatable: bool = False
    """Whether the last refresh may be repeated, by a client that lost its response."""
    is_ended: bool = False


@dataclass(eq=False)
class Token:
    """An access token. `known` is the version of the account that auth knew when it issued it."""

    text: str
    session: Session
    known: int
    role: str
    is_outdated: bool = False
    """It names a role that auth knows to have changed."""
    may_be_void: bool = False
    """Auth heard of a change after a later one: that may void more than it must. A refresh gets a valid token."""
    was_void: bool = False
    """Another service knows of it."""

    @property
    def is_void(self) -> bool:
        return self.session.is_ended or self.is_outdated


@dataclass
class Person:
    """The account, and what auth knows of it (`known`, `known_role`)."""

    version: int = 1
    role: str = "user"
    is_active: bool = True
    known: int = 0
    known_role: str = "user"
    sessions: list[Session] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)

    @property
    def live(self) -> list[Session]:
        return [session for session in self.sessions if not session.is_ended]

    def sign_in(self, session_id: str, access_token: str, refresh_token: str) -> None:
        if self.version > self.known:
            self.known, self.known_role = self.version, self.role
        self.sessions.append(Session(session_id, self.version, [refresh_token]))
        self.issue(self.sessions[-1], access_token)

    def issue(self, session: Session, access_token: str) -> None:
        self.tokens.append(Token(access_token, session, self.known, self.known_role))

    def refresh(self, session: Session, number: int) -> str | None:
        """What a refresh with the token `number` (1 is the newest) gets: `new`, `again`, or None for a refusal."""
        if session.is_ended:
            return None
        if number == 1:
            return "new"
        if number == 2 and session.is_repeatable:
            return "again"
        session.is_ended = True  # the token was used before, and may be stolen
        return None

    def change(self, *, role: str | None = None, is_active: bool | None = None) -> None:
        """A change at users, of which auth learns by the event, or from users at a sign-in before that."""
        self.version += 1
        self.role = role or self.role
        self.is_active = self.is_active if is_active is None else is_active

    def auth_learns(self, what: str, version: int, *, role: str | None, except_session: str | None) -> None:
        if what not in {"deactivated", "password_changed", "role_changed", "reactivated"}:
            return
        if what != "reactivated" and version <= self.known:
            for token in self.tokens:
                token.may_be_void = token.may_be_void or token.known < self.known
        if version >= self.known:
            self.known, self.known_role = version, role or self.known_role
        if what == "role_changed":
            for token in self.tokens:
                token.is_outdated = token.is_outdated or token.known < version
        elif what != "reactivated":
            for session in self.live:
                session.is_ended = session.started < version and session.id != except_session

    def services_learn(self) -> None:
        for token in self.tokens:
            token.was_void = token.is_void
