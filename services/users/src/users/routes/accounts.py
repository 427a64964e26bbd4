"""Sign-up, and what people do with their own accounts."""

from fastapi import Response

from common.web import ApiRouter, responses
from users import queries
from users.credentials.throttle import settle
from users.deps import DatabaseDep, HashingDep, PrincipalDep, SessionDep
from users.errors import WrongPassword
from users.handlers import accounts, logins
from users.schemas import PasswordChange, ProfileChange, SignUp, UserOut

router = ApiRouter(tags=["accounts"])


@router.post("/users", status_code=201, responses=responses(409))
async def sign_up(
    body: SignUp, database: DatabaseDep, hashing: HashingDep, response: Response, *, send_welcome: bool = True
) -> UserOut:
    """Makes an account. A mail welcomes the person unless `send_welcome` is false."""
    password = body.password.get_secret_value()
    with hashing.place() as place:
        async with database.transaction() as session:
            await accounts.require_free_email(session, body.email)
        await place.refuse_weak(password, name=body.name, email=body.email)
        password_hash = await place.hash(password)
    async with database.transaction() as session:
        user = await accounts.sign_up(
            session,
            name=body.name,
            email=body.email,
            age=body.age,
            password_hash=password_hash,
            send_welcome=send_welcome,
        )
    response.headers["Location"] = f"/users/{user.id}"
    return UserOut.model_validate(user)


@router.get("/me", responses=responses(404))
async def get_me(principal: PrincipalDep, session: SessionDep) -> UserOut:
    return UserOut.model_validate(await queries.user(session, principal.user_id))


@router.patch("/me", responses=responses(404, 409, 429))
async def change_me(body: ProfileChange, principal: PrincipalDep, session: SessionDep) -> UserOut:
    """Changes what the body holds. A changed address has to be verified anew."""
    user = await accounts.change_profile(session, principal.user_id, body.changes())
    return UserOut.model_validate(user)


@router.delete("/me", status_code=204, responses=responses(404, 409))
async def erase_me(principal: PrincipalDep, session: SessionDep) -> None:
    """Erases the account and its personal data, here and in all services. There is no way back."""
    await accounts.erase(session, principal.user_id)


@router.put("/me/password", status_code=204, responses=responses(404, 429))
async def change_my_password(
    body: PasswordChange, principal: PrincipalDep, database: DatabaseDep, hashing: HashingDep
) -> None:
    """Sets a new password. This session goes on, all others end."""
    user_id, new = principal.user_id, body.new.get_secret_value()
    with hashing.place() as place:
        async with database.transaction() as session:
            check = await logins.begin_password_check(session, user_id)
        is_right = await place.verify(body.current.get_secret_value(), check.password_hash)
        async with database.transaction() as session:
            await settle(session, check.attempt, success=is_right)
        if not is_right:
            raise WrongPassword
        await place.refuse_weak(new, name=check.name, email=check.email, field="new")
        new_hash = await place.hash(new)
    async with database.transaction() as session:
        await accounts.set_password(
            session,
            user_id,
            new_hash,
            old_hash=check.password_hash,
            except_session_id=principal.session_id,
        )
