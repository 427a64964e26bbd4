"""Conditions that tests of webhooks wait for."""

from notifier.settings import Settings

from .receiver import Receiver
from .world import World


def allowing(settings: Settings, *receivers: Receiver) -> Settings:
    allow = {("127.0.0.1", receiver.port) for receiver in receivers}
    return settings.model_copy(update={"webhook_allow": settings.webhook_allow | allow})


async def settled(world: World, *states: str) -> bool:
    return sorted(await world.post_states()) == sorted(states)


async def tried(world: World, attempts: int) -> bool:
    """Whether the only delivery has had this many attempts and waits for the next one."""
    [post] = await world.rows("SELECT attempts, cause, due_at > now() AS later FROM webhook_deliveries")
    return bool(post["attempts"] >= attempts and post["cause"] and post["later"])


async def make_due(world: World) -> None:
    await world.rows("UPDATE webhook_deliveries SET due_at = now(), cause = NULL WHERE state = 'pending' RETURNING 1")
